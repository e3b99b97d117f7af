(() => {
  document.documentElement.classList.add("js");
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Keys: j and k go through a list, or to the next and previous unit; u goes up; / searches.
  const step = (by) => {
    const items = $$("[data-step]");
    if (!items.length) {
      const link = document.querySelector(`[rel=${by > 0 ? "next" : "prev"}]`);
      if (link) link.click();
      return;
    }
    const at = items.indexOf(document.activeElement);
    const target = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : at + by];
    if (target) target.focus();
    else document.querySelector(`[rel=${by > 0 ? "next" : "prev"}]`)?.focus();
  };
  const arrows = (key) => {
    const grid = document.activeElement?.closest?.(".unitgrid");
    if (!grid) return false;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[key];
    const items = $$("[data-step]", grid);
    const target = items[items.indexOf(document.activeElement) + by];
    if (target) target.focus();
    return Boolean(target);
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "u") document.querySelector("[rel=up]")?.click();
    else if (event.key === "/") {
      const boxes = $$("[data-find]");
      const box = boxes[boxes.length - 1];
      if (!box) return;
      event.preventDefault();
      box.focus();
      box.select();
    } else if (!(event.key.startsWith("Arrow") && arrows(event.key))) return;
    event.preventDefault();
  });

  // A choice in a form of filters takes effect at once.
  for (const form of $$("form[data-auto]"))
    for (const select of $$("select", form)) select.addEventListener("change", () => form.requestSubmit());

  // What changes while a job runs is fetched again, as HTML, until the server says that it has ended.
  for (const part of $$("[data-live]")) {
    const refresh = async () => {
      if (document.hidden) return setTimeout(refresh, 2000);
      try {
        const answer = await fetch(part.dataset.live, { headers: { "X-Part": "live" } });
        if (answer.ok) {
          const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
          part.innerHTML = await answer.text();
          if (focused) $$("a", part).find((link) => link.getAttribute("href") === focused)?.focus();
          if (answer.headers.get("X-Ended")) return;
        }
      } catch (error) {
        // The server is away for a moment.
      }
      setTimeout(refresh, 2000);
    };
    setTimeout(refresh, 1500);
  }

  for (const link of $$("[data-copy]"))
    link.addEventListener("click", async (event) => {
      if (!navigator.clipboard) return;
      event.preventDefault();
      const text = link.textContent;
      await navigator.clipboard.writeText(link.href);
      link.textContent = "Copied";
      setTimeout(() => (link.textContent = text), 1600);
    });

  // A picture opens large.
  const frames = $$(".frame").filter((frame) => frame.querySelector("img[src*='side=']"));
  if (frames.length) {
    const dialog = document.createElement("dialog");
    const figure = document.createElement("figure");
    const large = document.createElement("img");
    const caption = document.createElement("figcaption");
    figure.append(large, caption);
    dialog.append(figure);
    document.body.append(dialog);
    dialog.addEventListener("click", () => dialog.close());
    for (const frame of frames) {
      frame.classList.add("zooms");
      frame.addEventListener("click", () => {
        const small = frame.querySelector("img");
        large.src = small.src.replace(/side=\d+/, "side=1024");
        large.alt = small.alt;
        const said = frame.closest("figure")?.querySelector(".said");
        caption.textContent = said ? `${small.alt}. ${said.textContent}` : small.alt;
        dialog.showModal();
      });
    }
  }

  // Try it: a picture or words go to the server, which answers a part of a page.
  const ask = async (form, address, body) => {
    const told = form.querySelector(".found");
    const place = form.parentElement.querySelector(".answer");
    told.textContent = "Working …";
    place.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(address, { method: "POST", headers: { "X-Part": "try" }, body });
      const text = await answer.text();
      if (answer.ok) place.innerHTML = text;
      told.textContent = answer.ok ? "" : new DOMParser().parseFromString(text, "text/html").querySelector(".lead")?.textContent || "It did not work.";
    } catch (error) {
      told.textContent = "The server does not answer.";
    }
    place.removeAttribute("aria-busy");
  };
  for (const form of $$("form[data-words]"))
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      ask(form, form.dataset.words, form.elements.words.value);
    });
  for (const form of $$("form[data-drop]")) {
    const input = form.querySelector("input");
    const send = (file) => {
      if (!file) return;
      form.querySelector("label span").textContent = file.name;
      ask(form, form.dataset.drop, file);
    };
    input.addEventListener("change", () => send(input.files[0]));
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      form.classList.add("over");
    });
    document.addEventListener("dragleave", () => form.classList.remove("over"));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      form.classList.remove("over");
      send(event.dataTransfer.files[0]);
    });
  }

  // In a folder there is no server to search: the page looks through units.js.
  const words = document.getElementById("words");
  if (words && window.units) {
    const make = (tag, name, text) => {
      const element = document.createElement(tag);
      element.className = name;
      if (text !== undefined) element.textContent = text;
      return element;
    };
    const show = () => {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      const fits = ([layer, unit, , label, second]) => {
        const text = `${label} ${second} ${layer} ${unit}`.toLowerCase();
        return wanted.every((word) => text.includes(word));
      };
      const found = wanted.length ? window.units.filter(fits) : [];
      const cards = found.slice(0, 96).map(([layer, unit, state, label, second, percentile, href, mosaic]) => {
        const card = make("a", `unitcard ${state}`);
        card.href = href;
        card.dataset.step = "";
        const picture = make("span", "mosaic");
        if (mosaic) {
          const image = make("img", "");
          image.src = mosaic;
          image.alt = "";
          picture.append(image);
        }
        card.append(picture, make("span", "name", label || "no label"), make("span", "second", second));
        card.append(make("span", "place", `${layer} ${unit}${percentile === null ? "" : ` · ${percentile.toFixed(2)}`}`));
        return card;
      });
      document.getElementById("hits").replaceChildren(...cards);
      const told = `${found.length} ${found.length === 1 ? "unit" : "units"}${found.length > cards.length ? `, the first ${cards.length}` : ""}`;
      document.getElementById("found").textContent = wanted.length ? told : "";
    };
    words.addEventListener("input", show);
    words.form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }
})();
