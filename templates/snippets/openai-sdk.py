# pip install openai
from openai import OpenAI

client = OpenAI(base_url="BASE_URL", api_key="YOUR_API_TOKEN")

answer = client.chat.completions.create(
    model="MODEL_ID",
    messages=[{"role": "user", "content": "Hello"}],
)
print(answer.choices[0].message.content)

stream = client.chat.completions.create(
    model="MODEL_ID",
    messages=[{"role": "user", "content": "Hello"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
