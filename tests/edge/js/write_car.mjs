// Makes trees with the JavaScript importer, with the settings of xorbit, writes each as a CAR, and
// says its root, as JSON. Reads from stdin: {"car": path, "files": {path: bytes in base64}}.
import { createWriteStream } from 'node:fs'
import { text } from 'node:stream/consumers'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CarWriter } from '@ipld/car'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

const { car, files } = JSON.parse(await text(process.stdin))
const blocks = new Map()
const blockstore = {
  async put (cid, bytes) {
    blocks.set(cid.toString(), { cid, bytes })
    return cid
  }
}
const source = Object.entries(files).map(([path, content]) => ({
  path, content: new Uint8Array(Buffer.from(content, 'base64'))
}))
let root
for await (const entry of importer(source, blockstore, {
  cidVersion: 1,
  rawLeaves: true,
  reduceSingleLeafToSelf: true,
  wrapWithDirectory: true,
  chunker: fixedSize({ chunkSize: 65_536 }),
  layout: balanced({ maxChildrenPerNode: 1_024 }),
  shardSplitStrategy: 'links-bytes',
  shardSplitThresholdBytes: 32_768
})) root = entry.cid

const { writer, out } = CarWriter.create([root])
const written = pipeline(Readable.from(out), createWriteStream(car))
for (const block of blocks.values()) await writer.put(block)
await writer.close()
await written
console.log(JSON.stringify({ root: root.toString(), blocks: blocks.size }))
