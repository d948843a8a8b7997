using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "main")],
);

const hello :Workerd.Worker = (
  modules = [
    (name = "worker", esModule = embed "workerd.js"),
    (name = "hello.js", commonJsModule = embed "hello.js"),
  ],
  compatibilityDate = "2026-01-01",
);
