'use strict'
// What all attacks use.

const fs = require('fs')

// Without namespaces it is not /tmp.
const TMP = process.env.TMPDIR ?? '/tmp'

const succeeded = (...what) => ['SUCCEEDED', ...what.map(String)].join(' ').slice(0, 300)
const reads = (path) => succeeded(fs.readFileSync(path).subarray(0, 64))
const lists = (path) => succeeded(fs.readdirSync(path))
const opens = (path, flags) => succeeded(fs.openSync(path, flags))
const create = (path) => succeeded(fs.writeFileSync(path, ''))
const forEver = () => new Promise((resolve) => setTimeout(resolve, 600000))

module.exports = { TMP, succeeded, reads, lists, opens, create, forEver }
