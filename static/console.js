// Small comforts. Every page works without this file: it only copies, makes tabs, and sends filters by itself.
"use strict";

function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");       // plain http: the clipboard API is not there
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied ? Promise.resolve() : Promise.reject(new Error("copying was refused"));
}

// Told to who listens to the page: a button that changes its words is not read out.
function say(text) {
  const spoken = document.getElementById("spoken");
  spoken.textContent = "";
  requestAnimationFrame(() => { spoken.textContent = text; });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  copyText(source.value ?? source.textContent).then(() => {
    const label = button.textContent;
    button.textContent = button.dataset.done;
    button.classList.add("done");
    say(button.dataset.done);
    setTimeout(() => { button.textContent = label; button.classList.remove("done"); }, 1600);
  }, () => getSelection().selectAllChildren(source));
});

function makeTabs(box) {
  const sections = [...box.querySelectorAll(":scope > section")];
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", box.dataset.label || "");
  const tabs = sections.map((section, i) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.id = `${section.id}-tab`;
    tab.textContent = section.querySelector("h3").textContent;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", section.id);
    section.setAttribute("role", "tabpanel");
    section.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => show(i));
    return tab;
  });
  function show(chosen) {
    sections.forEach((section, i) => {
      section.hidden = i !== chosen;
      tabs[i].setAttribute("aria-selected", i === chosen);
      tabs[i].tabIndex = i === chosen ? 0 : -1;
    });
  }
  list.addEventListener("keydown", (event) => {
    const now = tabs.indexOf(document.activeElement), last = tabs.length - 1;
    const next = { ArrowRight: now < last ? now + 1 : 0, ArrowLeft: now > 0 ? now - 1 : last, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    show(next);
    tabs[next].focus();
    event.preventDefault();
  });
  list.append(...tabs);
  box.prepend(list);
  box.classList.add("ready");
  show(Math.max(0, sections.findIndex((section) => section.id === location.hash.slice(1))));
}

document.querySelectorAll(".tabs").forEach(makeTabs);

// A filter acts when a choice was made: with the pointer, or with Enter in the open list. Arrows walk through a closed
// one, and every step of theirs is a change.
let walking = false;
document.addEventListener("keydown", (event) => { walking = event.key !== "Enter"; }, true);
document.addEventListener("pointerdown", () => { walking = false; }, true);
document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-auto]");
  if (form && event.target.tagName === "SELECT" && !walking) form.requestSubmit();
});
