// Dark or light by the visitor's choice, before anything is drawn: this script is not deferred.
"use strict";
const THEME = "pvemcp-theme";
const showTheme = (theme) => {
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme; // as the system says
};
const storedTheme = () => {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null; // a browser that keeps nothing
  }
};
showTheme(storedTheme());
addEventListener("storage", (event) => event.key === THEME && showTheme(event.newValue));
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("theme");
  if (!choice) return;
  choice.value = storedTheme() ?? "auto";
  choice.addEventListener("change", () => {
    showTheme(choice.value);
    localStorage.setItem(THEME, choice.value);
  });
});
