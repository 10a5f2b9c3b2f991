// npm install @anthropic-ai/sdk
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: "SITE_URL/api", authToken: "YOUR_API_TOKEN" });

const message = await client.messages.create({
  model: "MODEL_ID",
  max_tokens: 1024,
  messages: [{ role: "user", content: "Hello" }],
});
for (const block of message.content) {
  if (block.type === "text") console.log(block.text);
}
