// Reads a CAR with the readers of the JavaScript world and says what is in it, as JSON:
// the root, how many blocks, and for each path its type and the SHA2-256 of its bytes.
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { CarBlockIterator } from '@ipld/car'
import { MemoryBlockstore } from 'blockstore-core/memory'
import { exporter, recursive } from 'ipfs-unixfs-exporter'

const SHA2_256 = 0x12
const sha2 = (bytes) => createHash('sha256').update(bytes).digest()

const blockstore = new MemoryBlockstore()
const car = await CarBlockIterator.fromIterable(createReadStream(process.argv[2]))
let blocks = 0
for await (const { cid, bytes } of car) {
  if (cid.multihash.code === SHA2_256 && !sha2(bytes).equals(Buffer.from(cid.multihash.digest))) {
    throw new Error(`block ${cid} does not have its hash`)
  }
  await blockstore.put(cid, bytes)
  blocks++
}

const [root] = await car.getRoots()
const entries = {}
for await (const { cid, path } of recursive(root, blockstore)) {
  const entry = await exporter(cid, blockstore)
  const type = entry.unixfs?.type ?? entry.type
  let bytes = null
  if (type === 'file' || type === 'raw') {
    const hash = createHash('sha256')
    for await (const piece of entry.content()) hash.update(piece)
    bytes = hash.digest('hex')
  }
  entries[path.split('/').slice(1).join('/')] = { type, bytes }
}
console.log(JSON.stringify({ root: root.toString(), blocks, entries }))
