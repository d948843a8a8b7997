'use strict'
// Attacks from inside a Node.js function. Each returns what became of it: the name of an error, or a
// text; `SUCCEEDED` where nothing stopped it. What each must return stands in the table.

const os = require('os')

const frames = require('./frames')
const attacks = {
  ...require('./view'), ...require('./processes'), ...require('./ends'), ...require('./proxy'),
  ...frames.attacks
}

let calls = 0

module.exports = async function handle (context, payload) {
  calls += 1
  frames.state.current = calls - 1
  if (payload === null) return calls
  try {
    return await attacks[payload.attack](payload)
  } catch (error) {
    // Some errors have a number only.
    const number = Math.abs(error.info?.errno ?? error.errno)
    const known = Object.entries(os.constants.errno).find((entry) => entry[1] === number)
    const code = known?.[0] ?? error.code
    if (!code) throw error
    return code
  }
}
