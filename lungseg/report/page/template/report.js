"use strict";
(() => {
  const find = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const data = JSON.parse(find("#data").textContent);
  const make = (tag, properties = {}, children = []) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const format = (dice) => (dice === null ? "–" : dice.toFixed(4));
  all(".controls").forEach((form) => {
    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
  });

  // Dark or light: the system's choice until the button is pressed.
  const button = find("#theme");
  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };
  button.hidden = false;
  button.addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; });

  // Tables are sorted by a click on a title; cells without a number stay last.
  const value = (cell) => {
    const shown = cell.textContent.trim();
    const time = shown.match(/^(?:(\d+) h )?(?:(\d+) min ?)?(?:([\d.]+) s)?$/);
    const seconds = time && time[0] ? 3600 * (time[1] || 0) + 60 * (time[2] || 0) + Number(time[3] || 0) : null;
    const text = "value" in cell.dataset ? cell.dataset.value : seconds !== null ? String(seconds) : shown.replace(/,/g, "");
    const number = parseFloat(text.replace(/^[<>]\s*\./, "0.").replace(/^\./, "0."));
    return { text, number: /^[+\-−<>. ]*\d/.test(text) ? number : NaN };
  };
  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, ...value(row.cells[column]) }));
    rows.sort((a, b) => {
      if (Number.isNaN(a.number) !== Number.isNaN(b.number)) return Number.isNaN(a.number) ? 1 : -1;
      return direction * (Number.isNaN(a.number) ? a.text.localeCompare(b.text) : a.number - b.number);
    });
    body.append(...rows.map(({ row }) => row));
  };
  all("table.sortable").forEach((table) => {
    const titles = [...table.tHead.rows[0].cells];
    titles.forEach((title, column) => {
      const button = make("button", { type: "button", textContent: title.textContent });
      title.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = title.getAttribute("aria-sort") === "ascending";
        titles.forEach((other) => other.removeAttribute("aria-sort"));
        title.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down ? -1 : 1);
      });
    });
  });

  // One filter for all tables and plots.
  const filter = find("#filter");
  if (filter) {
    const baselines = find("#baselines");
    const isBaseline = new Set(data.baselines);
    const apply = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const names = new Set();
      const every = new Set();
      all("[data-approach]").forEach((element) => {
        const name = element.dataset.approach;
        every.add(name);
        const shown = words.every((word) => name.toLowerCase().includes(word)) &&
          (!baselines || baselines.checked || !isBaseline.has(name));
        element.toggleAttribute("data-hidden", !shown);
        if (shown) names.add(name);
      });
      find("#shown").textContent = `${names.size} of ${every.size} shown`;
      all("section.board").forEach((board) => {
        board.toggleAttribute("data-hidden", !find("tbody tr:not([data-hidden])", board));
      });
    };
    filter.addEventListener("input", apply);
    if (baselines) baselines.addEventListener("change", apply);
  }

  // One image, marked in every row of points.
  const images = data.images;
  const choose = find("#image");
  let mark = () => {};
  if (images) {
    const dots = new Map();
    all(".dot").forEach((dot) => {
      const key = Number(dot.dataset.image);
      dots.set(key, [...(dots.get(key) || []), dot]);
    });
    const from = find("#source");
    const sources = [...new Set(images.sources)].sort();
    from.append(make("option", { value: "", textContent: "all sources" }),
      ...sources.filter(Boolean).map((source) => make("option", { textContent: source })));
    from.parentElement.hidden = sources.length < 2;
    const list = () => {
      const kept = images.ids.map((id, place) => [id, place]).filter(([, place]) => !from.value || images.sources[place] === from.value);
      choose.replaceChildren(make("option", { value: "", textContent: "none (the worst comes first)" }),
        ...kept.map(([id, place]) => make("option", { value: place, textContent: id })));
    };
    let marked = [];
    mark = (place) => {
      marked.forEach((dot) => dot.classList.remove("on"));
      marked = dots.get(place) || [];
      marked.forEach((dot) => { dot.classList.add("on"); dot.parentElement.append(dot); });
      const parts = Object.entries(images.values).map(([name, values]) => `${name} ${format(values[place])}`);
      find("#chosen").textContent = place in images.ids ? `${images.ids[place]}: ${parts.join(" · ")}` : "";
    };
    list();
    choose.addEventListener("change", () => mark(choose.value === "" ? -1 : Number(choose.value)));
    from.addEventListener("change", () => { list(); mark(-1); });
    const touch = (event) => {
      if (!event.target.matches(".dot")) return;
      choose.value = event.target.dataset.image;
      mark(Number(event.target.dataset.image));
    };
    ["mouseover", "click"].forEach((kind) => find("#strips").addEventListener(kind, touch));
  }

  // Cases: a picture an image for one approach; a click shows all approaches.
  const cases = data.cases;
  if (cases) {
    const STEP = 48;
    const approach = find("#case-approach");
    const order = find("#case-order");
    const wanted = find("#case-find");
    const overlays = all(".case-overlay");
    const dialog = find("#case-dialog");
    let shown = [];
    let limit = STEP;
    const draw = (one, number, name, tag) => {
      const picture = make("span", { className: "picture" }, [make("img", { src: one.image, alt: `X-ray ${one.id}` })]);
      const over = number < 0 ? one.truth : one.overlays[number];
      if (over) picture.append(make("img", { src: over, alt: "", className: "over" }));
      const text = number < 0 ? "truth" : over ? format(one.dice[number]) : `${format(one.dice[number])}, no map stored`;
      return make(tag, { className: "case" }, [picture, make("span", { textContent: name }), make("span", { textContent: text })]);
    };
    const open = (place) => {
      const one = shown[place];
      if (!one) return;
      dialog.dataset.place = place;
      const apart = one.disagreement === null ? "" : `, disagreement ${(100 * one.disagreement).toFixed(1)} %`;
      find("#case-title").textContent = `${one.id}${one.source ? `, ${one.source}` : ""}${apart}`;
      const every = cases.approaches.map((name, number) => draw(one, number, name, "figure"));
      find("#case-all").replaceChildren(draw(one, -1, "truth", "figure"), ...every);
      if (!dialog.open) dialog.showModal();
      find("#case-title").focus();
      if (images && images.ids.includes(one.id)) {
        choose.value = images.ids.indexOf(one.id);
        mark(images.ids.indexOf(one.id));
      }
    };
    const list = () => {
      const number = cases.approaches.indexOf(approach.value);
      const words = wanted.value.toLowerCase();
      const by = {
        worst: (one) => one.dice[number] ?? 2,
        best: (one) => -(one.dice[number] ?? -2),
        disagreement: (one) => -(one.disagreement ?? -1),
        source: () => 0,
      }[order.value];
      shown = cases.cases.filter((one) => `${one.id} ${one.source}`.toLowerCase().includes(words));
      shown.sort((a, b) => (order.value === "source" ? a.source.localeCompare(b.source) : by(a) - by(b)));
      find("#case-grid").replaceChildren(...shown.slice(0, limit).map((one, place) => {
        const card = draw(one, number, one.id, "button");
        card.type = "button";
        card.addEventListener("click", () => open(place));
        return card;
      }));
      find("#case-more").hidden = shown.length <= limit;
      find("#case-count").textContent = `${shown.length} of ${cases.cases.length}`;
    };
    const restart = () => { limit = STEP; list(); };
    [approach, order].forEach((control) => control.addEventListener("change", restart));
    wanted.addEventListener("input", restart);
    const cover = (covered) => {
      overlays.forEach((box) => { box.checked = covered; });
      [find("#case-grid"), dialog].forEach((part) => part.classList.toggle("bare", !covered));
    };
    overlays.forEach((box) => box.addEventListener("change", () => cover(box.checked)));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "o" && !event.target.matches("input, select")) cover(!overlays[0].checked);
      if (dialog.open && event.key === "ArrowRight") open(Number(dialog.dataset.place) + 1);
      if (dialog.open && event.key === "ArrowLeft") open(Number(dialog.dataset.place) - 1);
    });
    find("#case-next").addEventListener("click", () => open(Number(dialog.dataset.place) + 1));
    find("#case-previous").addEventListener("click", () => open(Number(dialog.dataset.place) - 1));
    find("#case-more").addEventListener("click", () => { limit += STEP; list(); });
    list();
  }

  // Explanations are printed too, though folded; long lists only if they were unfolded.
  let folded = [];
  addEventListener("beforeprint", () => { folded = all("details:not([open]):not(.long)"); folded.forEach((one) => { one.open = true; }); });
  addEventListener("afterprint", () => folded.forEach((one) => { one.open = false; }));
})();
