// Node.js 18 or newer: node chat.mjs
const response = await fetch("BASE_URL/chat/completions", {
  method: "POST",
  headers: {
    "Authorization": "Bearer YOUR_API_TOKEN",
    "Content-Type": "application/json",
  },
  body: JSON.stringify({
    model: "MODEL_ID",
    messages: [{ role: "user", content: "Hello" }],
  }),
});
const result = await response.json();
if (!response.ok) throw new Error(result.error.message);
console.log(result.choices[0].message.content);
console.log(result.usage);
