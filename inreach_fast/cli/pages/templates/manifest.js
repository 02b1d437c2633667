(() => {
  const boxes = [...document.querySelectorAll("#images tbody input[type=checkbox]")];
  const selected = document.getElementById("selected");
  const actions = document.getElementById("actions");
  const chosen = () => boxes.filter((box) => box.checked);
  const show = () => { selected.textContent = `${chosen().length} of ${boxes.length} images selected`; };
  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const click = {
    above: () => boxes.forEach((box) => { box.checked = "above" in box.dataset; }),
    none: () => boxes.forEach((box) => { box.checked = false; }),
    csv: () => save("manifest.csv", "text/csv",
      ["file,score", ...chosen().map((box) => `${quoted(box.value)},${box.dataset.score}`)].join("\n") + "\n"),
    json: () => save("manifest.json", "application/json", JSON.stringify({
      folder: actions.dataset.folder,
      files: chosen().map((box) => ({ file: box.value, score: Number(box.dataset.score) })),
    }, null, 2) + "\n"),
  };
  actions.hidden = false;
  actions.addEventListener("click", (event) => { click[event.target.value]?.(); show(); });
  document.getElementById("images").addEventListener("change", show);
  show();
})();
