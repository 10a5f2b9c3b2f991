// Shows an answer while it arrives. Without this file the form leads to the same text on a page of its own.
"use strict";

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-stream]");
  if (!form) return;
  event.preventDefault();
  const said = document.getElementById(form.dataset.stream);
  const button = form.querySelector("button");
  said.hidden = false;
  said.textContent = "…";
  said.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    const response = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (!response.ok || response.redirected) throw new Error(response.statusText);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    said.textContent = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) said.textContent += part.value;
  } catch {
    said.textContent += said.dataset.broken;
  }
  said.removeAttribute("aria-busy");
  button.disabled = false;
});
