// What pages of the console do beside sending forms (htmx): news, signing in again, times, keys.
"use strict";
(() => {
  const body = document.body;
  const token = document.querySelector('meta[name="csrf-token"]');
  const find = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Forms -----------------------------------------------------------------------------------------------------------
  // A form proves that it is ours. Nothing it sends is lost where it fails: the answer goes above it, and it stays.
  document.addEventListener("htmx:config:request", ({ detail: { ctx } }) => {
    ctx.request.headers["X-CSRF-Token"] = token.content;
    if (ctx.background) ctx.request.headers["X-Background"] = "1";
    ctx.focused = document.activeElement;
  });
  document.addEventListener("htmx:before:request", ({ detail: { ctx } }) => {
    all("[aria-invalid]", ctx.sourceElement).forEach((field) => field.removeAttribute("aria-invalid"));
    ctx.fetch = async (path, request) => {
      const answer = await fetch(path, request);
      if (!(await unproven(answer))) return answer;
      ctx.over = !(await proven());
      if (ctx.over) return answer;
      request.headers["X-CSRF-Token"] = token.content;
      return fetch(path, request);
    };
  });
  // A button cannot be used while its form is under way, and a browser takes the focus from it.
  document.addEventListener("htmx:finally:request", ({ detail: { ctx } }) => {
    queueMicrotask(() => { // htmx lets it be used again once this event is over
      if (ctx.disabledElements?.includes(ctx.focused) && document.activeElement === body) ctx.focused.focus({ preventScroll: true });
    });
  });
  const unproven = async (answer) =>
    answer.status === 403 && (await answer.clone().text()).includes('data-problem="csrf-token"');
  // The person of this page has signed in anew in another tab: what proves his forms is another token now. That of
  // somebody else is not taken: in his name nothing is sent that he has not typed.
  async function proven() {
    const answer = await fetch("/admin/session");
    const session = answer.ok ? await answer.json() : null;
    if (session?.user.id !== token.dataset.user) return false;
    token.content = session.csrf_token;
    return true;
  }
  document.addEventListener("htmx:before:response", ({ detail: { ctx } }) => {
    const given = ctx.response.headers.get("X-CSRF-Token");
    if (given) {
      token.content = given;
      find("#again").close();
      find("#again-password").value = "";
    }
    if (ctx.response.status < 400 && !ctx.background && ctx.sourceElement.closest("form")) find("#said").replaceChildren();
    if ((ctx.response.status === 401 || ctx.over) && token.content && !ctx.sourceElement.closest("#again")) {
      if (!ctx.background) find("#again").showModal();
    }
  });
  document.addEventListener("htmx:after:swap", ({ detail: { ctx } }) => {
    dress(document);
    open(find("dialog[data-shows]"));
    const form = ctx.sourceElement.closest("form");
    if (!form || ctx.background || (ctx.response?.status ?? 0) < 400) return;
    all("[data-field]", ctx.target).forEach((line) => {
      const { field } = line.dataset;
      const wrong = form.elements.namedItem(field) ?? form.elements.namedItem("settings." + field);
      wrong?.setAttribute?.("aria-invalid", "true");
    });
    ctx.target.scrollIntoView({ block: "nearest" });
  });
  document.addEventListener("htmx:error", ({ detail: { ctx } }) => {
    if (!ctx?.background) say("The server could not be reached. Nothing you typed is lost: try again.");
  });
  document.addEventListener("done", ({ detail, target }) => {
    shut();
    target.closest?.("form")?.reset();
    say(detail.sentence);
    refresh();
    // What a form shows as saved may be another now. In a form that stands open and was not sent somebody may be typing.
    all("[data-saved]").filter((part) => part.matches("dialog") || part.contains(target)).forEach(renew);
  });
  const renew = (part) => htmx.ajax("GET", location.pathname + location.search, {
    source: part, target: part, select: "#" + part.id, swap: "outerMorph", background: true,
  });

  // What came with an answer to be seen at once: what is shown in it this once goes with it.
  function open(dialog) {
    if (!dialog) return;
    shut();
    dialog.removeAttribute("data-shows");
    dialog.addEventListener("close", () => { dialog.remove(); refresh(); });
    dialog.showModal();
  }
  // What was asked for is done: the next time everything is asked anew.
  function shut() {
    all("dialog[open]").forEach((dialog) => {
      dialog.close();
      all("form", dialog).forEach((form) => form.reset());
      all(".problems", dialog).forEach((part) => part.replaceChildren());
    });
  }

  function say(sentence) {
    const toast = document.createElement("div");
    toast.className = "toast-line";
    toast.textContent = sentence;
    find("#toasts").append(toast);
    setTimeout(() => toast.remove(), 8000);
  }

  // News ------------------------------------------------------------------------------------------------------------
  // What stands in [data-live] is had anew when something happened to a fax (of [data-live="ID"] to that one), at most
  // every two seconds, and not while nobody looks.
  let due = null;
  let missed = false;
  let source = null;
  function refresh(fax) {
    const wanted = all("[data-live]").some((part) => !fax || !part.dataset.live || part.dataset.live === fax);
    if (!wanted) return;
    missed = true;
    if (document.hidden || due) return;
    due = setTimeout(async () => {
      due = null;
      missed = false;
      for (const part of all("[data-live]")) {
        if (part.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), select, textarea")) continue;
        const at = part.contains(document.activeElement) ? document.activeElement : null;
        await renew(part);
        if (at && !at.isConnected && document.activeElement === body) goOn();
      }
    }, fax ? 2000 : 0);
  }
  // What had the focus is gone, as a button that was pressed: who works by keyboard goes on where the page begins.
  function goOn() {
    const title = find("main h1");
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
  function listen() {
    if (!body.dataset.stream || source || document.hidden) return;
    source = new EventSource("/events/stream");
    source.addEventListener("open", () => standing("live"));
    source.addEventListener("error", () => {
      standing("not live");
      if (source.readyState !== EventSource.CLOSED) return;
      source = null;
      setTimeout(listen, 30000);
    });
    const heard = (event) => refresh(JSON.parse(event.data).data.fax_id);
    body.dataset.stream.split(" ").forEach((type) => source.addEventListener(type, heard));
  }
  function standing(word) {
    const shown = find("#stream");
    shown.textContent = word;
    shown.className = "small stream " + (word === "live" ? "is-live" : "");
  }
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else {
      if (body.dataset.stream) { missed = true; refresh(); }
      listen();
    }
  });

  // Times, in the reader's own zone ---------------------------------------------------------------------------------
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  const words = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
  const sizes = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  function dress(within) {
    sift();
    all("time[datetime]", within).forEach((shown) => {
      const at = new Date(shown.dateTime);
      const seconds = Math.round((at - Date.now()) / 1000);
      const [unit, size] = sizes.find(([, length]) => Math.abs(seconds) >= length) ?? sizes[3];
      shown.title = moment.format(at) + " · " + shown.dateTime;
      if (shown.closest("[data-clock]")) shown.textContent = Math.abs(seconds) < 43200 ? clock.format(at) : moment.format(at);
      else shown.textContent = Math.abs(seconds) < 86400 ? words.format(Math.trunc(seconds / size), unit) : moment.format(at);
    });
  }
  setInterval(() => document.hidden || dress(document), 10000);

  // Forms that say more than their fields: files before they are sent, times in the reader's zone, tags -----------------
  function listed(input) {
    const files = [...input.files];
    const megabytes = files.reduce((sum, file) => sum + file.size, 0) / 1048576;
    const list = document.createElement("ul");
    for (const file of files) {
      const line = document.createElement("li");
      line.textContent = file.name + ", " + size(file.size);
      list.append(line);
    }
    const { most, megabytes: room } = input.dataset;
    const wrong = files.length > Number(most) ? "At most " + most + " documents go in one fax."
      : megabytes > Number(room) ? "Together they have more than " + room + " MB." : "";
    input.setCustomValidity(wrong);
    const said = document.createElement("p");
    said.className = "text-danger-emphasis";
    said.textContent = wrong;
    find(input.dataset.files).replaceChildren(list, ...(wrong ? [said] : []));
  }
  const size = (bytes) => bytes < 1048576 ? Math.ceil(bytes / 1024) + " KB" : (bytes / 1048576).toFixed(1) + " MB";
  document.addEventListener("change", ({ target }) => {
    if (target.matches("[data-files]")) listed(target);
  });
  document.addEventListener("input", ({ target }) => {
    if (target.matches("[data-utc]")) {
      const at = new Date(target.value);  // without a zone it is the browser's own
      target.form.elements.namedItem(target.dataset.utc).value = isNaN(at) ? "" : at.toISOString();
    }
    const tag = target.closest("[data-tag]");
    if (tag) {
      const name = find("[data-tag-name]", tag).value.trim();
      const value = find("[data-tag-value]", tag);
      if (name || value.value) value.name = "tags[" + name + "]";
      else value.removeAttribute("name");
    }
  });
  document.addEventListener("click", (event) => {
    const adds = event.target.closest("[data-adds-row]");
    if (!adds) return;
    const rows = find("[data-rows]", adds.parentElement);
    const row = rows.lastElementChild.cloneNode(true);
    all("input", row).forEach((input) => { input.value = ""; });
    all("[data-tag-value]", row).forEach((input) => input.removeAttribute("name"));
    rows.append(row);
    find("input", row).focus();
    adds.disabled = rows.children.length >= Number(rows.dataset.most);
  });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  all("[data-zone]").forEach((shown) => { shown.textContent = " (" + zone + ")"; });
  // What is searched for on the page itself; and a file whose text is sent ------------------------------------------
  function sift() {
    const asked = find("[data-sifts]");
    if (!asked) return;
    const wanted = asked.value.toLowerCase().split(/\s+/);
    const within = find(asked.dataset.sifts);
    all("[data-sifted]", within).forEach((line) => {
      const text = line.textContent.toLowerCase();
      line.hidden = !wanted.every((word) => text.includes(word));
    });
    all("[data-sifted-group]", within).forEach((group) => {
      group.hidden = !find("[data-sifted]:not([hidden])", group);
    });
    find("#sifted-out").hidden = Boolean(find("[data-sifted]:not([hidden])", within));
  }
  document.addEventListener("input", (event) => event.target.matches("[data-sifts]") && sift());
  document.addEventListener("change", async ({ target }) => {
    if (!target.matches("[data-reads-into]") || !target.files.length) return;
    find(target.dataset.readsInto).value = await target.files[0].text();
  });

  // Dialogs, menus, keys --------------------------------------------------------------------------------------------
  document.addEventListener("click", (event) => {
    const opens = event.target.closest("[data-opens]");
    if (opens) find(opens.dataset.opens).showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog").close();
    const copies = event.target.closest("[data-copies]");
    if (copies) copy(copies, find(copies.dataset.copies));
    const file = event.target.closest("[data-file]");
    if (file && token.content && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      keep(file);
    }
    const veil = event.target.closest("[data-image]");
    if (veil) unveil(veil);
    const toggles = event.target.closest("[data-toggles]");
    if (toggles) {
      const open = find(toggles.dataset.toggles).classList.toggle("is-open");
      toggles.setAttribute("aria-expanded", String(open));
    }
  });
  // A page of a fax is had when somebody opens it, and not before.
  function unveil(veil) {
    const image = new Image();
    image.className = "leaf";
    image.alt = veil.textContent;
    image.addEventListener("load", () => {
      const had = veil === document.activeElement;
      image.tabIndex = -1;
      veil.replaceWith(image);
      if (had) image.focus({ preventScroll: true });
    });
    image.addEventListener("error", async () => {
      if (await here()) veil.textContent = "It cannot be shown now";
    });
    image.src = veil.dataset.image;
  }
  // Whether the session is there; where it is over it is asked for, and what was wanted can be asked for once more.
  async function here() {
    const answer = await fetch("/admin/session").catch(() => null);
    const over = answer?.status === 401;
    if (over) find("#again").showModal();
    return !over;
  }
  // A file is no page: what is said in its place could not be read, or would be kept under its name.
  async function keep(link) {
    if (!(await here())) return;
    const way = link.cloneNode();
    way.removeAttribute("data-file");
    way.click();
  }
  async function copy(button, shown) {
    getSelection().selectAllChildren(shown);
    try {
      await navigator.clipboard.writeText(shown.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Selected: copy it with Ctrl+C"; // over plain http a browser lets no page do it
    }
  }
  document.addEventListener("change", (event) => {
    const choosesAll = event.target.closest("[data-chooses]");
    if (choosesAll) all(choosesAll.dataset.chooses).forEach((box) => { box.checked = choosesAll.checked; });
  });
  // Commands of one key can be switched off: who dictates, or slips, gives them without meaning to.
  const commands = find("#keys-on");
  try { if (commands) commands.checked = localStorage.getItem("faxbot-keys") !== "off"; } catch { /* a browser that keeps nothing */ }
  commands?.addEventListener("change", () => {
    try { localStorage.setItem("faxbot-keys", commands.checked ? "on" : "off"); } catch { /* it holds for this page */ }
  });
  document.addEventListener("keydown", (event) => {
    if (!commands?.checked || event.ctrlKey || event.metaKey || event.altKey || find("dialog[open]")) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) return;
    const rows = all("[data-row]");
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    const go = (index) => find("a", rows[Math.max(0, Math.min(index, rows.length - 1))] ?? document)?.focus();
    const keys = {
      "/": () => find("[data-search]")?.focus(),
      j: () => rows.length && go(at + 1),
      k: () => rows.length && go(at < 0 ? 0 : at - 1),
      x: () => at >= 0 && find("input[type=checkbox]", rows[at])?.click(),
      "?": () => find("#keys")?.showModal(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  dress(document);
  listen();
})();
