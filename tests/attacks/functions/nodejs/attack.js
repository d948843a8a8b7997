'use strict'
// Attacks from inside a Node.js function. Each returns what became of it: the name of an error, or a
// text; `SUCCEEDED` where nothing stopped it. What each must return stands in the table.

const frames = require('./frames')
const attacks = {
  ...require('./view'), ...require('./processes'), ...require('./ends'), ...frames.attacks
}

let calls = 0

module.exports = async function handle (context, payload) {
  calls += 1
  frames.state.current = calls - 1
  if (payload === null) return calls
  try {
    return await attacks[payload.attack](payload)
  } catch (error) {
    const code = error.info?.code ?? error.code
    if (!code) throw error
    return code
  }
}
