// Node.js 18+ (built-in fetch)
// For older Node.js, install: npm install node-fetch

const url = "https://pingtoken.cn/api/v1/chat/completions";
const headers = {
  "Authorization": "Bearer YOUR_API_TOKEN",
  "Content-Type": "application/json"
};
const body = {
  model: "deepseek-v4-pro",
  messages: [
    { role: "user", content: "Hello, how are you?" }
  ]
};

// Non-streaming request
const response = await fetch(url, {
  method: "POST",
  headers,
  body: JSON.stringify(body)
});
const result = await response.json();

console.log(result.choices[0].message.content);
console.log(`Tokens used: ${result.usage.total_tokens}`);

// Streaming request
body.stream = true;
const streamResp = await fetch(url, {
  method: "POST",
  headers,
  body: JSON.stringify(body)
});

const reader = streamResp.body.getReader();
const decoder = new TextDecoder();
let buffer = "";

while (true) {
  const { done, value } = await reader.read();
  if (done) break;
  buffer += decoder.decode(value, { stream: true });
  const lines = buffer.split("\n");
  buffer = lines.pop() || "";
  for (const line of lines) {
    if (line.startsWith("data: ") && line !== "data: [DONE]") {
      const chunk = JSON.parse(line.slice(6));
      const content = chunk.choices[0]?.delta?.content;
      if (content) process.stdout.write(content);
    }
  }
}
