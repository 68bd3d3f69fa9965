// Lets the reader step through outputs, look at inputs and choose how much of the flow is drawn. Makes no web requests, keeps
// nothing, and touches nothing outside of its own section.
function start(section) {
  section.dataset.ready = "";
  const data = JSON.parse(section.querySelector('script[type="application/json"]').textContent);
  const find = (selector) => section.querySelector(selector);
  const all = (selector) => [...section.querySelectorAll(selector)];
  const say = (selector, text) => { const line = find(selector); if (line && line.textContent !== text) line.textContent = text; };
  const on = (selector, event, act) => { const target = find(selector); if (target) target.addEventListener(event, act); };
  // What is looked at: an output, inputs, a node of the graph; and what says so again for another output.
  const state = { row: 0, share: data.frame ? data.frame.share : 1, inputs: [], node: -1, again: null };
  const tokens = all(".token[data-i]").sort((a, b) => a.dataset.i - b.dataset.i), words = all(".token[data-w]");
  const gifts = all(".token[data-g]").sort((a, b) => a.dataset.g - b.dataset.g);
  const patches = find(".patches");
  const raw = tokens.map((token) => token.title.replace(/: [^:]*$/, ""));
  const graph = flowGraph(data, state, find, say);
  const digitsHeld = Math.round(Math.log10(data.unit));

  const isFar = (row, input) => data.far.length > 0 && data.far[row][input] === "1";
  const isFarGift = (row, input) => data.given.far.length > 0 && data.given.far[row][input] === "1";
  const isFarWord = (row, place) => {
    const [first, stop] = data.words[place];
    return [...Array(stop - first).keys()].every((i) => isFar(row, first + i));
  };
  const written = (score, far, digits) => far ? data.terms.noPath : score === null ? data.terms.unknown :
    (score / data.unit).toFixed(Math.min(digits, digitsHeld));
  const scoreText = (row, input, digits) => written(data.scores[row][input], isFar(row, input), digits);
  const wordText = (row, place, digits) => written(data.wordScores[row][place], isFarWord(row, place), digits);

  function drawButton(button, name, score, far, error, largest = data.largest) {
    button.querySelector("small").textContent = far ? data.terms.dash : written(score, far, data.digits.brief) + (score === null ? "" : error);
    button.style.setProperty("--s", Math.min(Math.abs(score) / data.unit / largest, 1));
    button.classList.toggle("minus", score < 0);
    button.classList.toggle("far", far);
    button.title = name + ": " + written(score, far, data.digits.full);
  }
  function drawStrip() {
    const row = state.row;
    tokens.forEach((token, i) => drawButton(token, raw[i], data.scores[row][i], isFar(row, i),
      data.errors ? " ±" + (data.errors[row][i] / data.fineUnit).toFixed(data.digits.brief) : ""));
    words.forEach((word, i) => drawButton(word, data.words[i][2], data.wordScores[row][i], isFarWord(row, i), ""));
    gifts.forEach((gift, i) => drawButton(gift, raw[i], data.given.scores[row][i], isFarGift(row, i), "", data.given.largest));
    if (gifts.length) say(".given-note", data.given.notes[row]);
    if (patches) {
      patches.style.setProperty("--scale", data.fullest[row] ? data.largest / data.fullest[row] : 1);
      say(".fullest", String(data.fullest[row]));
    }
    say(".which bdi", data.titles[row]);
    say(".row-name", `${row + 1} of ${data.titles.length}`);
    const slider = find("input.row");
    if (slider) { slider.value = row; slider.setAttribute("aria-valuetext", data.titles[row]); }
  }

  const lines = all(".matrix tbody tr"), matrix = find(".matrix-frame");
  const gapAt = lines.length && lines[0].querySelector(".gap") ? data.nEncoder + 1 : Infinity;
  let cursor = [0, 0], marked = null;
  function pointAt(row, input, scroll) {
    cursor = [row, input];
    if (marked) marked.classList.remove("on");
    marked = lines.length ? lines[row].cells[input + 1 + (input + 1 >= gapAt ? 1 : 0)] : null;
    if (marked) marked.classList.add("on");
    if (marked && scroll) marked.scrollIntoView({ block: "nearest", inline: "nearest" });
    say(".matrix-readout", `${apart(data.titles[row])}, from ${apart(data.tokens[input])}: ${scoreText(row, input, data.digits.full)}`);
  }

  function setRow(row) {
    state.row = Math.max(0, Math.min(data.titles.length - 1, row));
    state.node = -1;
    drawStrip(); graph.draw(); graph.drawLayers();
    lines.forEach((line, i) => line.classList.toggle("on", i === state.row));
    see(state.again);
  }
  function see(again) {
    state.again = again;
    say(".gift-readout", "");
    if (again) again(); else look([], "");
  }
  function look(inputs, text) {
    state.inputs = inputs;
    tokens.forEach((token, i) => token.classList.toggle("on", inputs.includes(i)));
    say(".strip-readout", text);
    graph.drawParts();
  }
  const lookAtToken = (i) => look([i], `${apart(data.tokens[i])}: ${scoreText(state.row, i, data.digits.full)} · ${apart(data.titles[state.row])}`);
  const lookAtWord = (place) => {
    const [first, stop, word] = data.words[place];
    look([...Array(stop - first).keys()].map((i) => first + i), `${apart(word)}: ${wordText(state.row, place, data.digits.full)} · ${apart(data.titles[state.row])}`);
  };

  // One button is a stop of the tab key. Arrows to the sides lead to the others, those up and down to other outputs.
  function reach(buttons, lookAt) {
    buttons.forEach((button, i) => {
      const here = () => lookAt(i);
      button.tabIndex = i ? -1 : 0;
      button.addEventListener("pointerenter", () => see(here));
      button.addEventListener("pointerleave", () => {
        const focused = buttons.indexOf(document.activeElement);
        see(focused < 0 ? null : () => lookAt(focused));
      });
      button.addEventListener("focus", () => { buttons.forEach((other) => { other.tabIndex = other === button ? 0 : -1; }); see(here); });
      button.addEventListener("blur", () => see(null));
      button.addEventListener("keydown", (event) => {
        if (event.key === "Escape") button.blur();
        let way = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!way) return;
        event.preventDefault();
        if (/Up|Down/.test(event.key)) { setRow(state.row + way); return; }
        const strip = button.closest(".strip");
        if (strip && strip.dir === "rtl") way = -way;
        for (let next = i + way; next >= 0 && next < buttons.length; next += way)
          if (!buttons[next].hidden) { buttons[next].focus(); break; }
      });
    });
  }
  reach(tokens, lookAtToken);
  reach(words, lookAtWord);
  reach(gifts, (i) => {
    look([i], "");
    say(".gift-readout", `${apart(data.tokens[i])}: ${written(data.given.scores[state.row][i], isFarGift(state.row, i), data.digits.full)} · ${apart(data.titles[state.row])}`);
  });
  on("input.row", "input", (event) => setRow(+event.target.value));
  on("button.back", "click", () => setRow(state.row - 1));
  on("button.on", "click", () => setRow(state.row + 1));
  on("input.share", "input", (event) => {
    state.share = +event.target.value >= 100 ? 2 : +event.target.value / 100;
    event.target.setAttribute("aria-valuetext", event.target.value + "% of each layer's flow");
    graph.draw();
  });
  on("input.specials", "change", (event) => all(".token.special").forEach((token) => { token.hidden = !event.target.checked; }));
  on("input.whole", "change", (event) => {
    find(".tokens").hidden = event.target.checked;
    find(".words").hidden = !event.target.checked;
  });

  lines.forEach((line, row) => line.addEventListener("click", () => setRow(row)));
  on(".matrix tbody", "pointermove", (event) => {
    const cell = event.target.closest("td"), line = event.target.closest("tr");
    if (cell && !cell.classList.contains("gap")) pointAt(lines.indexOf(line), cell.cellIndex - 1 - (cell.cellIndex > gapAt ? 1 : 0));
  });
  all(".heat").forEach((heat) => {
    const first = +heat.dataset.first, n = +heat.dataset.n, rows = data.titles.length;
    heat.addEventListener("pointermove", (event) => {
      const edge = heat.getBoundingClientRect(), part = (at, length, n) => Math.max(0, Math.min(n - 1, Math.floor(at / length * n)));
      pointAt(part(event.clientY - edge.top, edge.height, rows), first + part(event.clientX - edge.left, edge.width, n));
    });
    heat.addEventListener("click", () => setRow(cursor[0]));
  });
  if (matrix) matrix.addEventListener("keydown", (event) => {
    const way = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    if (event.key === "Enter") setRow(cursor[0]);
    if (!way) return;
    event.preventDefault();
    pointAt(Math.max(0, Math.min(data.titles.length - 1, cursor[0] + way[0])),
      Math.max(0, Math.min(data.tokens.length - 1, cursor[1] + way[1])), true);
  });
  setRow(0);
}

document.querySelectorAll("section.jaxflow:not([data-ready])").forEach((section) => {
  if (section.querySelector('script[type="application/json"]')) start(section);
});
