# Says hello: {"name": "Jon", "place": "here"}.
def handle(_context, payload)
  name = payload&.fetch('name', nil) || 'Noone'
  place = payload&.fetch('place', nil) || 'Nowhere'
  { myField: "Hello, #{name} from #{place}" }
end
