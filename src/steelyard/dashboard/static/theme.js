// Before the first paint, so that nothing flashes.
"use strict";
{
  const chosen = localStorage.getItem("steelyard-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
