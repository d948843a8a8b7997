// The same work behind the Node.js functions-framework.
const handle = require('../hello.js')

exports.serve = (request, response) => response.json(handle({}, request.body))
