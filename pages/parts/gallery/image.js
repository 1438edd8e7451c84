// Puts a pair's picture into an image. One that the server cannot give yet, as it is still being found or its store does
// not answer just now, is asked for again. Other scripts go on from here.

const LATER_MS = [1000, 2000, 4000, 8000, 16000, 32000, 64000]

const putPicture = (image, src, lost, tried = 0) => {
  image.onerror = async () => {
    if (!src.startsWith("/pairs/") || tried === LATER_MS.length) return lost()
    // An image does not tell why it failed.
    const answer = await fetch(src, { method: "HEAD" }).catch(() => undefined)
    if (answer && !answer.ok && answer.status !== 503) return lost()
    setTimeout(() => { if (image.isConnected) putPicture(image, src, lost, tried + 1) }, LATER_MS[tried])
  }
  image.src = src
}
