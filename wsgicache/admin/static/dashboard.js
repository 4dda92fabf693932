// Keeps a page up to date: every few seconds what it shows is fetched anew, unless nobody looks at it.
"use strict";

(() => {
  const main = document.getElementById("main");
  const bar = document.getElementById("live");
  const seconds = Number(main.dataset.live);
  if (!seconds) return;
  const button = bar.querySelector("button");
  const note = bar.querySelector("span");
  const url = new URL(location.href);
  url.searchParams.set("fragment", "1");
  let paused = false;
  let timer;

  // Whoever is reading with the keyboard or has marked a text keeps what is there.
  const isInUse = () =>
    (main.contains(document.activeElement) && document.activeElement !== main) ||
    (!getSelection().isCollapsed && main.contains(getSelection().anchorNode));

  const show = (text) => {
    const open = new Set(Array.from(main.querySelectorAll("details[open]"), (each) => each.id));
    main.innerHTML = text; // our own page, escaped on the server; its policy lets no script in it run
    for (const each of main.querySelectorAll("details")) each.open = open.has(each.id);
    note.textContent = `Updated at ${new Date().toLocaleTimeString()}`;
  };

  const update = async () => {
    try {
      const response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
      if (response.status === 403) {
        note.textContent = "The session has ended: load the page again to sign in.";
        return;
      }
      const text = await response.text();
      if (response.ok && !paused && !isInUse()) show(text);
    } catch {
      note.textContent = "The site does not answer; trying again.";
    }
    schedule();
  };

  const schedule = () => {
    clearTimeout(timer);
    if (!paused && !document.hidden) timer = setTimeout(() => (isInUse() ? schedule() : update()), seconds * 1000);
  };

  button.addEventListener("click", () => {
    paused = !paused;
    button.textContent = paused ? "Go on updating" : "Pause updates";
    schedule();
  });
  document.addEventListener("visibilitychange", schedule);
  bar.hidden = false;
  schedule();
})();
