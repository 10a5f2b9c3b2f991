// Markdown as models write it, shown as nodes of the page. What a model says is hostile: nothing of it is ever
// parsed as HTML, no address but http and https becomes a link, and no picture is loaded.
"use strict";

const INLINE = /(`+)(.+?)\1(?!`)|\*\*(.+?)\*\*|__(.+?)__|\*([^\s*](?:[^*]*[^\s*])?)\*|!?\[([^\]]*)\]\(([^()\s]+)(?:\s+"[^"]*")?\)/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const CELLS = /^\s*\|?\s*:?-{3,}:?\s*(\|\s*:?-{3,}:?\s*)*\|?\s*$/;
const DEEPEST = 8;                                      // lists in lists, marks in marks

function node(name, ...inside) {
  const made = document.createElement(name);
  made.append(...inside);
  return made;
}

function link(words, address) {
  let url;
  try { url = new URL(address); } catch { return words; }
  if (url.protocol !== "https:" && url.protocol !== "http:") return words;
  const made = node("a", words);
  made.href = url.href;
  made.title = url.href;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  return made;
}

// The words of a line: code, strong, emphasis and links; everything else is text.
function inline(text, depth = 0) {
  const made = [];
  while (depth < DEEPEST) {
    const found = INLINE.exec(text);
    if (!found) break;
    made.push(text.slice(0, found.index));
    const [whole, , code, strong, bold, emphasis, words, address] = found;
    if (code !== undefined) made.push(node("code", code.trim() || code));
    else if (strong ?? bold) made.push(node("strong", ...inline(strong ?? bold, depth + 1)));
    else if (emphasis) made.push(node("em", ...inline(emphasis, depth + 1)));
    else made.push(link(words || address, address));
    text = text.slice(found.index + whole.length);
  }
  made.push(text);
  return made.filter((each) => each !== "");
}

function cells(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((each) => each.trim());
}

function table(lines) {
  const made = node("table", node("thead", node("tr", ...cells(lines[0]).map((each) => node("th", ...inline(each))))));
  made.append(node("tbody", ...lines.slice(2).map((line) => node("tr", ...cells(line).map((each) => node("td", ...inline(each)))))));
  const box = node("div", made);
  box.className = "wide-table";
  return box;
}

// Lines from `at` on that are items of one list, the deeper ones as lists within; returns [list, the line after].
function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const made = node(/\d/.test(mark) ? "ol" : "ul");
  if (/\d/.test(mark) && parseInt(mark, 10) !== 1) made.start = parseInt(mark, 10);
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (found && found[1].length <= indent.length + 1) {
      if (found[1].length < indent.length || /\d/.test(found[2]) !== /\d/.test(mark)) break;
      made.append(node("li", ...inline(found[3])));
      at += 1;
    } else if (found && made.lastChild && depth < DEEPEST) {
      const [inner, next] = list(lines, at, depth + 1);
      made.lastChild.append(inner);
      at = next;
    } else if (lines[at].trim() && /^\s/.test(lines[at]) && made.lastChild) {
      made.lastChild.append(" ", ...inline(lines[at].trim()));
      at += 1;
    } else break;
  }
  return [made, at];
}

// A text as a fragment of the page.
function markdown(text, depth = 0) {
  const made = document.createDocumentFragment();
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  let at = 0, words = [];
  const close = () => {
    if (!words.length) return;
    const paragraph = node("p");
    words.forEach((line, index) => paragraph.append(...(index ? ["\n"] : []), ...inline(line)));
    made.append(paragraph);
    words = [];
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s*(`{3,}|~{3,})/.exec(line);
    const heading = /^(#{1,6})\s+(.*)$/.exec(line);
    if (fence) {
      close();
      const end = lines.findIndex((each, index) => index > at && each.trim().startsWith(fence[1]));
      const inside = lines.slice(at + 1, end < 0 ? lines.length : end);
      made.append(node("pre", node("code", inside.join("\n"))));
      at = end < 0 ? lines.length : end + 1;
    } else if (heading) {
      close();
      made.append(node(`h${Math.min(6, heading[1].length + 3)}`, ...inline(heading[2])));
      at += 1;
    } else if (RULE.test(line)) {
      close();
      made.append(node("hr"));
      at += 1;
    } else if (ITEM.test(line)) {
      close();
      const [inner, next] = list(lines, at, 0);
      made.append(inner);
      at = next;
    } else if (/^\s*>/.test(line) && depth < DEEPEST) {
      close();
      let end = at;
      while (end < lines.length && /^\s*>/.test(lines[end])) end += 1;
      const inside = lines.slice(at, end).map((each) => each.replace(/^\s*> ?/, ""));
      made.append(node("blockquote", markdown(inside.join("\n"), depth + 1)));
      at = end;
    } else if (line.includes("|") && CELLS.test(lines[at + 1] ?? "")) {
      close();
      let end = at + 2;
      while (end < lines.length && lines[end].includes("|")) end += 1;
      made.append(table(lines.slice(at, end)));
      at = end;
    } else {
      if (line.trim()) words.push(line.trim());
      else close();
      at += 1;
    }
  }
  close();
  return made;
}
