"use strict";
(function () {
  var root = document.documentElement;
  function press(name, value) {
    document.querySelectorAll("button[data-" + name + "]").forEach(function (button) {
      button.setAttribute("aria-pressed", String(button.dataset[name] === value));
    });
  }
  function speak(language) {
    root.lang = language;
    document.querySelectorAll("[data-en]").forEach(function (element) {
      var text = element.dataset[language];
      if (element.tagName === "IMG") element.alt = text;
      else if (/^(title|desc)$/i.test(element.tagName)) element.textContent = text;
      else element.setAttribute("aria-label", text);
    });
    press("lang", language);
  }
  function show(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    press("theme", theme);
  }
  document.querySelector(".switches").hidden = false;
  document.addEventListener("click", function (event) {
    var button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.lang) speak(button.dataset.lang);
    else if (button.dataset.theme !== undefined) show(button.dataset.theme);
  });
  var closed = [];
  window.addEventListener("beforeprint", function () {
    closed = Array.from(document.querySelectorAll("details:not([open])"));
    closed.forEach(function (each) { each.open = true; });
  });
  window.addEventListener("afterprint", function () {
    closed.forEach(function (each) { each.open = false; });
  });
  speak(root.lang);
})();
