// Runs a flat RP2040 image in rp2040js; UART 0 is a TCP port on 127.0.0.1, whose number it prints.
//   node rp2040.cjs image.bin [pcm.raw]
// With pcm.raw (int16, 16 kHz) an I2S microphone sits on GP2 (SD), GP3 (SCK), GP4 (WS), left
// channel, and what the UART says comes on standard output; after the last sample the script ends.
// Every change of GP25 is told on standard error.
const fs = require('fs');
const net = require('net');
const { Simulator } = require('rp2040js');

const FLASH = 0x10000000;
const NANOS_PER_CYCLE = 8;
const CYCLES_PER_PIO_STEP = 61; // 125 MHz / 2.048 MHz
const [image, recording] = process.argv.slice(2);

const simulator = new Simulator();
const mcu = simulator.rp2040;
const uart = mcu.uart[0];
mcu.flash.set(fs.readFileSync(image), 0);
mcu.core.VTOR = FLASH;
mcu.core.reset();

let client = null;
let received = []; // by the port, not yet by the UART
let said = []; // by the UART, not yet sent
uart.onByte = (byte) => said.push(byte);
mcu.onBreak = () => {
  console.error(`stopped at 0x${mcu.core.PC.toString(16)}`);
  process.exit(3);
};
mcu.gpio[25].addListener((now, before) => now + before === 1 && console.error('led toggled'));

// The microphone: a bit at every falling edge of SCK; the first one of the left channel comes one
// period after WS fell.
let pcm = recording ? fs.readFileSync(recording) : null;
let sample = 0;
let bit = 32;
let wsBefore = true;
function sckFell() {
  const ws = mcu.gpio[4].value === 1;
  bit = bit < 32 ? bit + 1 : bit;
  if (wsBefore && !ws) bit = -1;
  wsBefore = ws;
  if (bit === 0) sample++;
  if (2 * sample + 2 > pcm.length) setTimeout(() => process.exit(0), 200);
  // 24 bits, the 16 of the recording 12 dB below full scale
  const word = (pcm.readInt16LE(Math.min(2 * sample, pcm.length - 2)) << 14) >> 8;
  mcu.gpio[2].setInputValue(bit >= 0 && bit < 24 ? ((word >> (23 - bit)) & 1) === 1 : false);
}
mcu.pio[0].run = () => {}; // stepped below, in time with the core
if (pcm) mcu.gpio[3].addListener((now, before) => now === 0 && before === 1 && sckFell());

function run() {
  let pioCycles = 0;
  for (let i = 0; i < 20000; i++) {
    const cycles = mcu.core.waiting ? 1 : mcu.core.executeInstruction();
    simulator.clock.tick(cycles * NANOS_PER_CYCLE);
    if (pcm && (pioCycles += cycles) >= CYCLES_PER_PIO_STEP) {
      pioCycles -= CYCLES_PER_PIO_STEP;
      if (mcu.pio[0].machines[0].enabled) mcu.pio[0].step();
    }
    if (received.length > 0 && i % 64 === 0) {
      while (received.length > 0 && !uart.rxFIFO.full) uart.feedByte(received.shift());
    }
  }
  if (said.length > 0 && client) client.write(Buffer.from(said.splice(0)));
  if (said.length > 0 && pcm) process.stdout.write(Buffer.from(said.splice(0)));
  setImmediate(run);
}

const server = net.createServer((socket) => {
  client = socket;
  socket.setNoDelay(true);
  socket.on('data', (bytes) => received.push(...bytes));
  socket.on('close', () => (client = null));
  socket.on('error', () => (client = null));
});
server.listen(0, '127.0.0.1', () => {
  if (!pcm) console.log(`port ${server.address().port}`);
  run();
});
