// Installs what a manifest names: MANIFEST LAYER. A manifest is a package.json, a package-lock.json or a
// pnpm-lock.yaml; its text says which.
'use strict'

const fs = require('fs')
const path = require('path')
const { spawnSync } = require('child_process')

const QUIET = ['--no-audit', '--no-fund', '--no-update-notifier', '--loglevel=error']
const TOOLS = '/tmp/tools'
const [manifest, layer] = process.argv.slice(2)
const text = fs.readFileSync(manifest, 'utf8')

function fail (message) {
  console.error(message)
  process.exit(1)
}

function write (name, content) {
  fs.writeFileSync(path.join(layer, name), typeof content === 'string' ? content : JSON.stringify(content))
}

function run (program, ...words) {
  const { status, error } = spawnSync(program, words, { cwd: layer, stdio: 'inherit' })
  if (error) fail(`${program} cannot be run: ${error.message}`)
  if (status !== 0) process.exit(status ?? 1)
}

// What the project itself wants, of a package-lock.json.
function ofNpm (lock) {
  const own = lock.packages?.['']
  if (!own) fail(`this package-lock.json has version ${lock.lockfileVersion}: write it anew with npm 7 or later`)
  console.log('from package-lock.json')
  write('package.json', own)
  write('package-lock.json', text)
  run('npm', 'ci', '--omit=dev', ...QUIET, '--prefix', layer)
}

// What the project itself wants, of a pnpm-lock.yaml: the names and what was asked for, below `importers` and `.`, or
// at the top in older ones.
function ofPnpm () {
  const version = Number(text.match(/^lockfileVersion: '?(\d+)/m)[1])
  const wanted = { dependencies: {}, optionalDependencies: {}, devDependencies: {} }
  const found = []
  let name
  for (const line of text.split('\n')) {
    const [, space, key, value] = line.match(/^( *)'?([^\s'#][^\s']*)'?:(?: +(.*))?$/) ?? []
    if (key === undefined) continue
    const depth = space.length / 2
    found.length = Math.min(found.length, depth)
    found[depth] = key
    const place = found[0] === 'importers' ? found.slice(2) : found
    if (found[0] === 'importers' && found[1] !== '.') continue
    if (place.length === 2 && place[0] in wanted) name = key
    if (place.length === 3 && place[0] in wanted && key === 'specifier') {
      wanted[place[0]][name] = value.replace(/^'(.*)'$/, '$1')
    }
  }
  if (version < 6) fail(`this pnpm-lock.yaml has version ${version}: write it anew with pnpm 8 or later`)
  console.log('from pnpm-lock.yaml')
  write('package.json', { name: 'layer', version: '0.0.0', ...wanted })
  write('pnpm-lock.yaml', text)
  // The one that wrote it, for this once.
  const pnpm = version < 9 ? 'pnpm@8' : 'pnpm@9'
  fs.mkdirSync(TOOLS, { recursive: true })
  run('npm', 'install', ...QUIET, '--no-package-lock', '--prefix', TOOLS, pnpm)
  run(
    process.execPath, path.join(TOOLS, 'node_modules/pnpm/bin/pnpm.cjs'), 'install', '--frozen-lockfile', '--prod',
    '--ignore-workspace', '--config.node-linker=hoisted', '--config.store-dir=/tmp/store', '--reporter=append-only'
  )
}

if (/^lockfileVersion:/m.test(text)) {
  ofPnpm()
} else {
  let read
  try {
    read = JSON.parse(text)
  } catch (error) {
    fail(`package.json cannot be read: ${error.message}`)
  }
  if (read?.lockfileVersion !== undefined) {
    ofNpm(read)
  } else {
    write('package.json', text)
    run('npm', 'install', '--omit=dev', ...QUIET, '--no-package-lock', '--prefix', layer)
  }
}
