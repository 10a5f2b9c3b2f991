// The model test: sends a conversation, shows the answer while it arrives, then what it cost.
// Whatever a model says is put into the page as text, or as Markdown's nodes (markdown.js), never as HTML.
"use strict";

const form = document.getElementById("ask");
const words = document.getElementById("words")?.dataset;
const part = (id) => document.getElementById(id);
const PICTURES_BYTES_MAX = 8 << 20;                     // together; base64 and the conversation make more of it
// One conversation with each model that is asked: `turns` is what it is told, {role, content}.
const talks = [{ select: "model", turns: [] }, { select: "other", turns: [] }];
let running = null;                                     // the AbortController of the calls that run

function clone(id, into = part("talk")) {
  const turn = part(id).content.firstElementChild.cloneNode(true);
  part("nothing")?.remove();
  into.append(turn);
  return turn;
}

function keepInView(change) {
  const box = part("talk");
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (atEnd) box.scrollTop = box.scrollHeight;
}

function request(talk, content) {
  const order = part("style").selectedOptions[0].dataset.order;
  const system = [part("system").value.trim(), order].filter(Boolean).join("\n\n");
  const body = { model: part(talk.select).value, stream: true, messages: [...talk.turns, { role: "user", content }] };
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
async function answer(turn, talk, content) {
  const said = { role: "assistant", content: "" }, asked = performance.now();
  let id = null, end = null;
  try {
    const response = await fetch(form.dataset.address.replace(/0$/, part("token").value), {
      method: "POST", signal: running.signal, body: JSON.stringify(request(talk, content)),
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

function asData(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}

// The pictures that were chosen, as data: addresses; none where a model does not see them.
function pictures() {
  const files = part("pictures-field").hidden ? [] : [...part("pictures").files];
  return Promise.all(files.map(asData));
}

function show(mine, text, urls) {
  mine.querySelector(".said").textContent = text;
  for (const url of urls) {
    const image = document.createElement("img");
    image.src = url;
    image.alt = "";
    mine.append(image);
  }
}

// Asks one model in its own conversation, and shows what it says in a turn.
async function ask(talk, turn, content) {
  turn.querySelector(".who").textContent = part(talk.select).selectedOptions[0].textContent;
  const { id, said } = await answer(turn, talk, content);
  turn.setAttribute("aria-busy", "false");
  if (said) talk.turns.push({ role: "user", content }, said);
  return { id, turn, said };
}

async function send() {
  const text = part("text").value.trim();
  if (!text || running) return;
  running = new AbortController();
  busy(true);
  const urls = await pictures().catch(() => []);
  const images = urls.map((url) => ({ type: "image_url", image_url: { url } }));
  const content = images.length ? [{ type: "text", text }, ...images] : text;
  const asked = talks.filter((talk) => part(talk.select).value);
  show(clone("mine"), text, urls);
  const place = asked.length > 1 ? clone("versus") : part("talk");
  const ran = asked.map((talk) => ask(talk, clone("theirs", place), content));
  part("talk").scrollTop = part("talk").scrollHeight;
  part("text").value = part("pictures").value = "";
  const results = await Promise.all(ran);
  running = null;
  busy(false);
  if (!results.some((each) => each.said) && !part("text").value) part("text").value = text;  // it can be sent again
  part("text").focus();
  keepInView(() => {});
  await Promise.all(results.map(({ turn, id }) => showCost(turn, id)));
}

function offerModels() {
  const allowed = JSON.parse(part("token").selectedOptions[0].dataset.models ?? "null");
  for (const select of talks.map((talk) => part(talk.select))) {
    for (const option of select.options) {
      option.hidden = option.value !== "" && allowed !== null && !allowed.includes(option.value);
      option.dataset.free ??= option.disabled ? "no" : "yes";
      option.disabled = option.hidden || option.dataset.free === "no";
    }
    if (select.selectedOptions[0]?.disabled) {
      const first = [...select.options].find((option) => !option.disabled);
      if (first) select.value = first.value;
    }
  }
  offerPictures();
}

function offerPictures() {
  const chosen = talks.map((talk) => part(talk.select)).filter((select) => select.value);
  part("pictures-field").hidden = !chosen.every((select) => "images" in select.selectedOptions[0].dataset);
}

// Too much at once is told at the field, before anything is sent.
function weigh() {
  const size = [...part("pictures").files].reduce((sum, file) => sum + file.size, 0);
  part("pictures").setCustomValidity(size > PICTURES_BYTES_MAX ? words.large : "");
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
    for (const talk of talks) talk.turns = [];
    part("talk").replaceChildren();
    busy(false);
    part("text").focus();
  });
  part("token").addEventListener("change", offerModels);
  for (const talk of talks) part(talk.select).addEventListener("change", offerPictures);
  part("pictures").addEventListener("change", weigh);
  offerModels();
}
