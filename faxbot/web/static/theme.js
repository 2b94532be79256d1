// Light or dark, as the reader's system says or as he chose; before anything is drawn.
"use strict";
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const chosen = () => { try { return localStorage.getItem("faxbot-theme"); } catch { return null; } };
  const apply = () => { root.dataset.bsTheme = chosen() ?? (dark.matches ? "dark" : "light"); };
  apply();
  dark.addEventListener("change", apply);
  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-switch]")) return;
    const next = root.dataset.bsTheme === "dark" ? "light" : "dark";
    try { localStorage.setItem("faxbot-theme", next); } catch { /* a browser that keeps nothing */ }
    root.dataset.bsTheme = next;
  });
})();
