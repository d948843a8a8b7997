// Shows what a function receives.
module.exports = (context, params) => ({ context, params })
