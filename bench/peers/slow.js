// The work that is measured, done slowly, so that calls at the same time need workers of their own.
module.exports = async function (context, payload) {
  await new Promise((resolve) => setTimeout(resolve, 1000))
  return { myField: 'Hello, ' + payload.name + ' from ' + payload.place }
}
