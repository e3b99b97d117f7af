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
})();
