(ns dispatch.channel
  "Frames over the inherited socket: docs/reference/worker-protocol.md."
  (:require [dispatch.json :as json])
  (:import (java.io BufferedInputStream DataInputStream EOFException FileDescriptor FileInputStream
                    FileOutputStream IOException InputStream OutputStream)
           (java.nio ByteBuffer)))

(set! *warn-on-reflection* true)

(def max-body (bit-shift-left 1 20))
(def ^:private max-header (bit-shift-left 1 16))

(defrecord Channel [^DataInputStream input ^OutputStream output])

(defn channel [^InputStream input output]
  (->Channel (DataInputStream. (BufferedInputStream. input 65536)) output))

(defn inherited
  "The socket that every worker inherits. The program's manifest opens the field."
  []
  (let [descriptor (FileDescriptor.)]
    (doto (.getDeclaredField FileDescriptor "fd")
      (.setAccessible true)
      (.setInt descriptor 3))
    (channel (FileInputStream. descriptor) (FileOutputStream. descriptor))))

(defn utf8 ^bytes [^String text] (.getBytes text "UTF-8"))

(defn receive
  "The next frame as header and body, or nil at the end of the stream."
  [^Channel channel]
  (let [^DataInputStream input (.input channel)
        head (try (.readInt input) (catch EOFException _ nil))]
    (when head
      (let [size (.readInt input)]
        (when-not (and (<= 0 (long head) (long max-header)) (<= 0 size (long max-body)))
          (throw (IOException. "a frame is too large")))
        (let [header (byte-array head)
              body (byte-array size)]
          (.readFully input header)
          (.readFully input body)
          [(json/read-text (String. header "UTF-8")) body])))))

(defn transmit
  ([channel header] (transmit channel header (byte-array 0)))
  ([channel header ^bytes body] (transmit channel header body 0 (alength body)))
  ([^Channel channel header ^bytes body start length]
   (let [head (utf8 (json/text header max-header))
         frame (doto (ByteBuffer/allocate (+ 8 (alength head) (int length)))
                 (.putInt (alength head))
                 (.putInt (int length))
                 (.put head)
                 (.put body (int start) (int length)))]
     (locking channel
       (.write ^OutputStream (.output channel) (.array frame))))))

(defn send-result
  "Sends a result in as many frames as it needs."
  [channel id ^bytes result]
  (let [most (long max-body)]
    (loop [at 0 type (if (<= (alength result) most) "end" "head")]
      (let [length (min most (- (alength result) at))
            left (- (alength result) at length)]
        (transmit channel {:type type :id id} result at length)
        (when (pos? left)
          (recur (+ at length) (if (<= left most) "end" "chunk")))))))
