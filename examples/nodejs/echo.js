// Returns its input with the context added.
module.exports = (context, input) => ({ ...input, context })
