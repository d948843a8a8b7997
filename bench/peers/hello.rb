def handle(context, payload)
  { myField: "Hello, #{payload['name']} from #{payload['place']}" }
end
