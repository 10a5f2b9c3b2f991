// The model test: sends a conversation, shows the answer while it arrives, then what it cost.
// Whatever a model says is put into the page as text, or as Markdown's nodes (markdown.js), never as HTML.
"use strict";

const form = document.getElementById("ask");
const words = document.getElementById("words")?.dataset;
const part = (id) => document.getElementById(id);
let turns = [];                                         // what the model is told: {role, content}
let running = null;                                     // the AbortController of the call that runs

function clone(id) {
  const turn = part(id).content.firstElementChild.cloneNode(true);
  part("nothing")?.remove();
  part("talk").append(turn);
  return turn;
}

function keepInView(change) {
  const box = part("talk");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function request(text) {
  const order = part("style").selectedOptions[0].dataset.order;
  const system = [part("system").value.trim(), order].filter(Boolean).join("\n\n");
  const body = { model: part("model").value, stream: true, messages: [...turns, { role: "user", content: text }] };
  if (system) body.messages.unshift({ role: "system", content: system });
  if (part("temperature").value !== "") body.temperature = Number(part("temperature").value);
  if (part("max-tokens").value !== "") body.max_tokens = Number(part("max-tokens").value);
  return body;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    rest += value ?? "";
    const lines = rest.split(/\r\n|\n|\r/);
    rest = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
    if (done) return;
  }
}

function fail(turn, sentence) {
  const alert = turn.querySelector(".alert");
  alert.textContent = sentence;
  alert.hidden = false;
}

async function refused(response) {
  if (response.redirected) return words.signedOut;
  try {
    const doc = await response.json();
    return doc.sentence ?? doc.error.message;
  } catch {
    return response.status === 400 ? words.signedOut : `${words.odd} (${response.status})`;
  }
}

// The answer so far as Markdown, at most once for each picture that the screen shows.
function draw(turn, said) {
  if (said.drawing) return;
  said.drawing = requestAnimationFrame(() => {
    said.drawing = 0;
    keepInView(() => turn.querySelector(".answer").replaceChildren(markdown(said.content)));
  });
}

// Adds one chunk of the stream to the turn; returns why the answer ended, if it says so.
function add(turn, said, chunk) {
  if (chunk.error) {
    fail(turn, chunk.error.message ?? words.broken);
    return "error";
  }
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning;
  keepInView(() => {
    const reasoning = turn.querySelector(".thought");
    if (typeof thought === "string" && thought) {
      if (reasoning.hidden) reasoning.open = true;
      reasoning.hidden = false;
      reasoning.querySelector(".said").append(thought);
    }
    if (typeof delta.content === "string" && delta.content) {
      if (!said.content) reasoning.open = false;                // folded away once the answer begins
      said.content += delta.content;
      said.first ??= performance.now();
      draw(turn, said);
    }
  });
  return choice?.finish_reason;
}

async function showCost(turn, id) {
  const state = turn.querySelector(".state");
  if (!id) { state.textContent = ""; return; }
  state.textContent = words.counting;
  for (let wait = 150; wait < 5000; wait *= 2) {
    const response = await fetch(form.dataset.cost.replace("ID", encodeURIComponent(id))).catch(() => null);
    const told = response?.status === 200 && !response.redirected ? await response.json() : null;
    if (told?.closed) {
      keepInView(() => {
        const seconds = Number(turn.dataset.seconds);
        const speed = seconds > 0.2 && told.output_tokens ? `${Math.round(told.output_tokens / seconds)} ${words.speed}` : "";
        turn.querySelector(".speed").textContent = [turn.dataset.first, speed].filter(Boolean).join(" · ");
        state.textContent = [turn.dataset.note, told.text].filter(Boolean).join(" · ");
        const link = turn.querySelector(".tail a");
        link.href = told.url;
        link.hidden = false;
      });
      return;
    }
    if (response?.status === 404) { state.textContent = turn.dataset.note ?? ""; return; }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  state.textContent = words.unknown;
}

// Runs one call; returns what was answered, and whether the caller should keep the turn in the conversation.
async function answer(turn, text) {
  const said = { role: "assistant", content: "" }, asked = performance.now();
  let id = null, end = null;
  try {
    const response = await fetch(form.dataset.address.replace(/0$/, part("token").value), {
      method: "POST", signal: running.signal, body: JSON.stringify(request(text)),
      headers: { "Content-Type": "application/json", "X-CSRFToken": form.dataset.csrf },
    });
    id = response.headers.get("x-request-id");
    if (!response.ok || response.redirected || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
      fail(turn, await refused(response));
      return { id, said: null };
    }
    turn.querySelector(".state").textContent = words.answering;
    for await (const data of events(response)) {
      if (data !== "[DONE]") end = add(turn, said, JSON.parse(data)) ?? end;
    }
  } catch (error) {
    if (error.name === "AbortError") turn.dataset.note = words.stopped;
    else fail(turn, error instanceof SyntaxError ? words.odd : words.broken);
  }
  if (said.first) turn.dataset.first = `${words.first} ${((said.first - asked) / 1000).toFixed(1)} s`;
  turn.dataset.seconds = said.first ? (performance.now() - said.first) / 1000 : "";
  if (end === "length") turn.dataset.note = words.length;
  if (end && end !== "error" && !said.content) turn.dataset.note = words.silent;
  return { id, said: said.content ? { role: said.role, content: said.content } : null };
}

function busy(yes) {
  part("send").hidden = yes;
  part("stop").hidden = !yes;
  part("talk").setAttribute("aria-busy", yes);           // an answer is read out when it is whole, not piece by piece
  part("again").disabled = yes || !part("talk").querySelector(".turn");
}

async function send() {
  const text = part("text").value.trim();
  if (!text || running) return;
  running = new AbortController();
  busy(true);
  const mine = clone("mine");
  mine.querySelector(".said").textContent = text;
  const turn = clone("theirs");
  turn.querySelector(".who").textContent = part("model").selectedOptions[0].textContent;
  part("talk").scrollTop = part("talk").scrollHeight;
  part("text").value = "";
  const { id, said } = await answer(turn, text);
  running = null;
  busy(false);
  turn.setAttribute("aria-busy", "false");
  if (said) turns.push({ role: "user", content: text }, said);
  else if (!part("text").value) part("text").value = text;      // nothing came: the message can be sent again
  part("text").focus();
  keepInView(() => {});
  await showCost(turn, id);
}

function offerModels() {
  const allowed = JSON.parse(part("token").selectedOptions[0].dataset.models ?? "null");
  for (const option of part("model").options) {
    option.hidden = allowed !== null && !allowed.includes(option.value);
    option.dataset.free ??= option.disabled ? "no" : "yes";
    option.disabled = option.hidden || option.dataset.free === "no";
  }
  if (part("model").selectedOptions[0]?.disabled) {
    const first = [...part("model").options].find((option) => !option.disabled);
    if (first) part("model").value = first.value;
  }
}

if (form) {
  form.addEventListener("submit", (event) => { event.preventDefault(); if (form.reportValidity()) send(); });
  part("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  part("stop").addEventListener("click", () => running?.abort());
  part("again").addEventListener("click", () => {
    turns = [];
    part("talk").replaceChildren();
    busy(false);
    part("text").focus();
  });
  part("token").addEventListener("change", offerModels);
  offerModels();
}
