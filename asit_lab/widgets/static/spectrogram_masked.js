// The part of a sound that the mask covers: of its short-time Fourier transform, only what lies on masked pixels.

const WINDOW = 0.032; // s, near that of a log-mel's frames

// In place, of a power of two of values. sign: -1 forward, 1 back, which is not divided by their number.
function fourier(real, imaginary, sign) {
  const count = real.length;
  for (let i = 1, j = 0; i < count; i++) {
    let bit = count >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i >= j) continue;
    [real[i], real[j]] = [real[j], real[i]];
    [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
  }
  for (let half = 1; half < count; half *= 2) {
    for (let k = 0; k < half; k++) {
      const [cos, sin] = [Math.cos((Math.PI * k) / half), sign * Math.sin((Math.PI * k) / half)];
      for (let i = k, j = k + half; j < count; i += 2 * half, j += 2 * half) {
        const x = real[j] * cos - imaginary[j] * sin;
        const y = real[j] * sin + imaginary[j] * cos;
        real[j] = real[i] - x;
        imaginary[j] = imaginary[i] - y;
        real[i] += x;
        imaginary[i] += y;
      }
    }
  }
}

// wave [samples] at `rate` Hz, from where the axes start; pixels: the mask, [frames, bands]. What lies outside is silent.
function onlyMasked(wave, rate, pixels, axes) {
  const size = 2 ** Math.round(Math.log2(WINDOW * rate));
  const hop = size / 2;
  const window = Float64Array.from({ length: size }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / size)); // squares add to 1
  const bandOf = (bin) => Math.min(axes.bands - 1, Math.floor(axes.place((Math.min(bin, size - bin) * rate) / size)));
  const bands = Array.from({ length: size }, (_, bin) => bandOf(bin));
  const kept = new Float32Array(wave.length);
  for (let start = -hop; start < wave.length; start += hop) {
    const frame = Math.floor((start + hop) / rate / axes.hop);
    const masked = pixels.subarray(frame * axes.bands, (frame + 1) * axes.bands);
    if (!masked.some(Boolean)) continue;
    const real = window.map((weight, i) => weight * (wave[start + i] ?? 0));
    const imaginary = new Float64Array(size);
    fourier(real, imaginary, -1);
    bands.forEach((band, bin) => masked[band] || (real[bin] = imaginary[bin] = 0));
    fourier(real, imaginary, 1);
    const [from, to] = [Math.max(0, -start), Math.min(size, wave.length - start)];
    for (let i = from; i < to; i++) kept[start + i] += (window[i] * real[i]) / size;
  }
  return kept;
}

// The masked part of a 16-bit WAV of one channel, as a WAV. Throws if `buffer` is not a WAV.
function maskedWav(buffer, pixels, axes) {
  const { format, rate, data } = wavParts(buffer);
  const samples = new Int16Array(data.slice().buffer);
  const wave = onlyMasked(Float32Array.from(samples), rate, pixels, axes);
  const kept = Int16Array.from(wave, (value) => limit(Math.round(value), -32768, 32767));
  return wavOf(format, new Uint8Array(kept.buffer));
}
