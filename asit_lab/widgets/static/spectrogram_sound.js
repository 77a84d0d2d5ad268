// Plays the sounds of an explorer from its view, through the explorer's <audio> elements, so that their own controls and
// the view always agree.

class Sounds {
  constructor(start, moved, mask) {
    this.start = start; // () => s of the recording at which all sounds begin
    this.moved = moved; // called whenever the playhead moves, or what plays changes
    this.mask = mask; // () => [pixels of the mask, axes]
    this.explorer = null;
    this.chosen = "";
    this.masked = false; // only what the mask covers is played, by `part`
    this.part = make("audio", { hidden: true });
    this.made = null; // what `part` was made from
    this.selection = null; // [from, to], s of the recording
    this.loop = false;
    this.waiting = 0;
    this.tick = this.tick.bind(this);
    this.onPlay = ({ target }) => this.follow(target);
  }

  attach(explorer) {
    this.explorer = explorer;
    explorer.addEventListener("play", this.onPlay, true);
    explorer.addEventListener("seeked", this.moved, true);
    explorer.addEventListener("pause", this.moved, true);
  }

  // What can be played: name -> <audio>.
  available() {
    const boxes = [...(this.explorer?.querySelectorAll(".asit-sound") ?? [])];
    const visible = boxes.filter((box) => box.style.display !== "none" && box.querySelector("audio")?.src);
    return new Map(visible.map((box) => [box.querySelector(".widget-label")?.textContent ?? "", box.querySelector("audio")]));
  }

  // The explorer's player of the chosen sound.
  get player() {
    const players = this.available();
    if (!players.has(this.chosen)) this.chosen = players.keys().next().value ?? "";
    return players.get(this.chosen) ?? null;
  }

  // What is played.
  get audio() {
    const { player } = this;
    return player && this.masked ? this.part : player;
  }

  get playing() {
    return Boolean(this.audio && !this.audio.paused);
  }

  // s of the recording; null while there is nothing to play
  get head() {
    return this.audio ? this.start() + this.audio.currentTime : null;
  }

  seek(time) {
    const { audio } = this;
    if (audio) audio.currentTime = Math.max(0, time - this.start());
    this.moved();
  }

  async toggle() {
    const { audio } = this;
    if (!audio) return;
    if (!audio.paused) return audio.pause();
    if (this.masked) await this.cut();
    const within = this.selection && this.head >= this.selection[0] && this.head < this.selection[1] - 0.01;
    if (this.selection && !within) this.seek(this.selection[0]);
    else if (audio.ended) this.seek(this.start());
    audio.play();
  }

  // Another sound at the same place, playing if the one before played.
  choose(name) {
    if (name === this.chosen || !this.available().has(name)) return;
    this.change(() => (this.chosen = name));
  }

  toggleMasked() {
    const [pixels] = this.mask();
    if (this.masked || pixels.some(Boolean)) this.change(() => (this.masked = !this.masked));
  }

  async change(change) {
    const { audio: before, playing } = this;
    const at = before?.currentTime ?? 0;
    before?.pause();
    change();
    if (this.masked) await this.cut();
    const { audio } = this;
    if (!audio) return;
    audio.currentTime = Math.min(at, audio.duration || Infinity);
    if (playing) audio.play();
    this.moved();
  }

  // Make the masked part of the chosen sound, unless it is the one that was made last. Whether it is another one.
  async cut() {
    const { player, part } = this;
    const [pixels, axes] = this.mask();
    const same = (made) => made?.src === player.src && made.pixels.every((masked, i) => masked === pixels[i]);
    if (!player || same(this.made)) return false;
    const made = (this.made = { src: player.src, pixels: pixels.slice() });
    const buffer = await (await fetch(player.src)).arrayBuffer();
    if (this.made !== made) return false; // the mask has changed since
    const wav = maskedWav(buffer, made.pixels, axes);
    const at = part.currentTime;
    URL.revokeObjectURL(part.src);
    part.src = URL.createObjectURL(new Blob([wav], { type: "audio/wav" }));
    part.currentTime = at;
    return true;
  }

  // The mask may have changed.
  async refresh() {
    if (!this.masked) return;
    if (!this.mask()[0].some(Boolean)) return this.toggleMasked();
    const { playing } = this;
    if ((await this.cut()) && playing) this.part.play();
  }

  // A player was started by its own control, or by the view.
  follow(audio) {
    if (audio !== this.part) this.masked = false;
    for (const [name, other] of this.available()) if (other === audio) this.chosen = name;
    this.waiting ||= requestAnimationFrame(this.tick);
  }

  tick() {
    this.waiting = 0;
    const { audio, selection } = this;
    if (!audio) return;
    const [from, to] = selection ?? [this.start(), Infinity];
    if (selection && !audio.paused && this.head >= to) {
      if (this.loop) audio.currentTime = from - this.start();
      else audio.pause();
    }
    if (this.loop && !selection && audio.ended) {
      audio.currentTime = 0;
      audio.play();
    }
    this.moved();
    if (!audio.paused) this.waiting = requestAnimationFrame(this.tick);
  }

  detach() {
    this.part.pause();
    URL.revokeObjectURL(this.part.src);
    if (this.waiting) cancelAnimationFrame(this.waiting);
    this.explorer?.removeEventListener("play", this.onPlay, true);
    this.explorer?.removeEventListener("seeked", this.moved, true);
    this.explorer?.removeEventListener("pause", this.moved, true);
  }
}

// What a 16-bit WAV holds: its format of 16 bytes, the rate in Hz, bytes of one frame, and its data. Throws if `buffer` is
// not a WAV.
function wavParts(buffer) {
  const view = new DataView(buffer);
  const tag = (offset) => String.fromCharCode(...new Uint8Array(buffer, offset, 4));
  let [format, data, size] = [0, 0, 0];
  for (let offset = 12, length = 0; offset + 8 <= view.byteLength; offset += 8 + length + (length & 1)) {
    length = view.getUint32(offset + 4, true);
    if (tag(offset) === "fmt ") format = offset + 8;
    if (tag(offset) === "data") [data, size] = [offset + 8, Math.min(length, view.byteLength - offset - 8)];
  }
  if (!format || !data) throw new Error("not a WAV");
  const [rate, frame] = [view.getUint32(format + 4, true), view.getUint16(format + 12, true)];
  return { format: new Uint8Array(buffer, format, 16), rate, frame, data: new Uint8Array(buffer, data, size) };
}

function wavOf(format, data) {
  const wav = new Uint8Array(44 + data.length);
  const header = new DataView(wav.buffer);
  const write = (offset, text) => [...text].forEach((letter, i) => header.setUint8(offset + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  header.setUint32(4, 36 + data.length, true);
  write(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  wav.set(format, 20);
  write(36, "data");
  header.setUint32(40, data.length, true);
  wav.set(data, 44);
  return wav;
}

// A part of a 16-bit WAV, s from its start, as a WAV of its own.
function cutWav(buffer, from, to) {
  const { format, rate, frame, data } = wavParts(buffer);
  const place = (time) => Math.min(data.length, Math.max(0, Math.round(time * rate)) * frame);
  return wavOf(format, data.slice(place(from), place(to)));
}
