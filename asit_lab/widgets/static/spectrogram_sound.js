// Plays the sounds of an explorer from its view, through the explorer's <audio> elements, so that their own controls and
// the view always agree.

class Sounds {
  constructor(start, moved) {
    this.start = start; // () => s of the recording at which all sounds begin
    this.moved = moved; // called whenever the playhead moves, or what plays changes
    this.explorer = null;
    this.chosen = "";
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

  get audio() {
    const players = this.available();
    if (!players.has(this.chosen)) this.chosen = players.keys().next().value ?? "";
    return players.get(this.chosen) ?? null;
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

  toggle() {
    const { audio } = this;
    if (!audio) return;
    if (!audio.paused) return audio.pause();
    const within = this.selection && this.head >= this.selection[0] && this.head < this.selection[1] - 0.01;
    if (this.selection && !within) this.seek(this.selection[0]);
    else if (audio.ended) this.seek(this.start());
    audio.play();
  }

  // Another sound at the same place, playing if the one before played.
  choose(name) {
    const before = this.audio;
    const next = this.available().get(name);
    if (!next || name === this.chosen) return;
    const wasPlaying = before && !before.paused;
    this.chosen = name;
    if (before) {
      next.currentTime = Math.min(before.currentTime, next.duration || Infinity);
      before.pause();
    }
    if (wasPlaying) next.play();
    this.moved();
  }

  // A player was started by its own control, or by the view.
  follow(audio) {
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
    if (this.waiting) cancelAnimationFrame(this.waiting);
    this.explorer?.removeEventListener("play", this.onPlay, true);
    this.explorer?.removeEventListener("seeked", this.moved, true);
    this.explorer?.removeEventListener("pause", this.moved, true);
  }
}

// A part of a 16-bit WAV, s from its start, as a WAV of its own. Throws if `buffer` is not a WAV.
function cutWav(buffer, from, to) {
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
  const place = (time) => Math.min(size, Math.max(0, Math.round(time * rate)) * frame);
  const samples = new Uint8Array(buffer.slice(data + place(from), data + place(to)));
  const wav = new Uint8Array(44 + samples.length);
  const header = new DataView(wav.buffer);
  const write = (offset, text) => [...text].forEach((letter, i) => header.setUint8(offset + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  header.setUint32(4, 36 + samples.length, true);
  write(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  wav.set(new Uint8Array(buffer, format, 16), 20);
  write(36, "data");
  header.setUint32(40, samples.length, true);
  wav.set(samples, 44);
  return wav;
}
