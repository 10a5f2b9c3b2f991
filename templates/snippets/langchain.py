# pip install langchain-openai
from langchain_openai import ChatOpenAI

model = ChatOpenAI(
    base_url="BASE_URL",
    api_key="YOUR_API_TOKEN",
    model="MODEL_ID",
)
print(model.invoke("Hello").content)

for chunk in model.stream("Hello"):
    print(chunk.content, end="", flush=True)
print()
