// Greets, and says so in its logs.
module.exports = function (context, payload) {
  const { name = 'Noone', place = 'Nowhere' } = payload || {}
  console.log(`returning message name=${name} and place=${place}`)
  return { myField: `Hello, ${name} from ${place}` }
}
