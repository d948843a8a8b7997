// Tells a secret, if it was given one.
module.exports = function (context, params) {
  const { password } = context.secrets
  return { message: password ? `The password is ${password}` : 'I know nothing' }
}
