// Greets whoever is named in the payload.
module.exports = function (context, payload) {
  const { name = 'Noone', place = 'Nowhere' } = payload || {}
  return { myField: `Hello, ${name} from ${place}` }
}
