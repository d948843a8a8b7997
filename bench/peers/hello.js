// The work that is measured, for Dispatch and for the raw server.
module.exports = function (context, payload) {
  return { myField: 'Hello, ' + payload.name + ' from ' + payload.place }
}
