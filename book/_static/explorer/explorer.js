// The slider of chapter 1: draws the truth table of the operation with the chosen index.
(() => {
  const input = document.getElementById("tvae-index");
  const number = document.getElementById("tvae-number");
  const glyph = document.getElementById("tvae-glyph");
  const fills = ["#762a83", "#f2f0ea", "#1b7837"];
  const inks = ["#ffffff", "#222222", "#ffffff"];
  const signs = ["−", "0", "+"];
  const draw = () => {
    const index = Number(input.value);
    const digits = index.toString(3).padStart(9, "0");
    const words = [...digits].map((d) => signs[d]).join(" ");
    number.textContent = index.toLocaleString("en");
    input.setAttribute("aria-valuetext", `operation ${index}: ${words}`);
    glyph.innerHTML = [...digits]
      .map((d, place) => {
        const x = 3 + (place % 3) * 50;
        const y = 3 + Math.floor(place / 3) * 50;
        return (
          `<rect x="${x}" y="${y}" width="48" height="48" fill="${fills[d]}"/>` +
          `<text x="${x + 24}" y="${y + 25}" fill="${inks[d]}">${signs[d]}</text>`
        );
      })
      .join("");
  };
  input.addEventListener("input", draw);
  draw();
})();
