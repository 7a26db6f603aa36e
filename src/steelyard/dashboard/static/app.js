// What htmx leaves to us: the theme, dialogs, and the one stream that says when to look again.
"use strict";
{
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const show = () => {
    const now = document.documentElement.dataset.theme ?? "system";
    button.textContent = `Theme: ${now}`;
    return now;
  };
  show();
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(show()) + 1) % themes.length];
    if (next === "system") {
      delete document.documentElement.dataset.theme;
      localStorage.removeItem("steelyard-theme");
    } else {
      document.documentElement.dataset.theme = next;
      localStorage.setItem("steelyard-theme", next);
    }
    show();
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens]");
    if (opener) document.getElementById(opener.dataset.opens)?.showModal();
    if (event.target.closest("[data-closes]")) event.target.closest("dialog")?.close();
  });
  document.addEventListener("input", (event) => {
    const output = event.target.matches("input[type=range]") && document.getElementById(`${event.target.id}-value`);
    if (output) output.textContent = `${Number(event.target.value).toFixed(2)}x`;
  });

  // What a person has opened stays open when the page is brought up to date.
  Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
    !(name === "open" && (node instanceof HTMLDetailsElement || node instanceof HTMLDialogElement));

  // A hidden page neither listens nor asks: browsers allow six connections to one server.
  const live = document.getElementById("live");
  let stream = null;
  const tell = () => htmx.trigger(document.body, "changed");
  const listen = () => {
    const wanted = live !== null && live.checked && !document.hidden;
    if (wanted && stream === null) {
      stream = new EventSource("/live");
      stream.onmessage = tell;
      stream.onopen = () => live.parentElement.classList.remove("lost");
      stream.onerror = () => live.parentElement.classList.add("lost");
    } else if (!wanted && stream !== null) {
      stream.close();
      stream = null;
    }
  };
  document.addEventListener("visibilitychange", listen);
  live?.addEventListener("change", listen);
  window.addEventListener("pagehide", () => stream?.close());
  listen();
}
