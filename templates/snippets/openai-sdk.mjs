// npm install openai
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "BASE_URL", apiKey: "YOUR_API_TOKEN" });

const stream = await client.chat.completions.create({
  model: "MODEL_ID",
  messages: [{ role: "user", content: "Hello" }],
  stream: true,
});
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
console.log();
