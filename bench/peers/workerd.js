// The same work behind workerd.
import handle from 'hello.js'

export default {
  async fetch(request) {
    return Response.json(handle({}, await request.json()))
  },
}
