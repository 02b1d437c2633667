"use strict";
(() => {
  const choice = document.getElementById("theme");
  choice.hidden = false;
  choice.addEventListener("change", (event) => {
    if (event.target.value) document.documentElement.dataset.theme = event.target.value;
    else delete document.documentElement.dataset.theme;
  });
})();
