export const MiB = 1024 * 1024

/** Bytes for a reader, rounded down: `12 MiB`, `3.4 GiB`. */
export const sizeText = (bytes: number): string =>
  bytes < MiB ? `${Math.floor(bytes / 1024)} KiB` : bytes < 1024 * MiB ? `${Math.floor(bytes / MiB)} MiB` : `${(bytes / 1024 / MiB).toFixed(1)} GiB`
