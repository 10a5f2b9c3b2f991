# pip install requests
import requests

response = requests.post(
    "BASE_URL/chat/completions",
    headers={"Authorization": "Bearer YOUR_API_TOKEN"},
    json={
        "model": "MODEL_ID",
        "messages": [{"role": "user", "content": "Hello"}],
    },
    timeout=120,
)
response.raise_for_status()
result = response.json()
print(result["choices"][0]["message"]["content"])
print(result["usage"])
