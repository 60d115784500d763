// What a session of Beam is to a proxy, by somebody else's code (Node's http2, npm's ws): the control that tells a
// fault of a proxy, or of its configuration, from one of ours.
//
//     node echo.mjs serve h2c|tls|ws PORT [CERT KEY]     sends back what comes, at once
//     node echo.mjs who PORT                             lets in who has the token "good", as "ada"
//     node echo.mjs call URL CA STREAMS MESSAGES LENGTH [HEADER=VALUE...]
//     node echo.mjs flood URL CA MIB
//     node echo.mjs tunnel h2|http1 URL CA               WebSocket's handshake: extended CONNECT, or an upgrade
//     node echo.mjs idle post|upgrade URL CA             says no more, until the way is closed
//     node echo.mjs ws URL CA MESSAGES LENGTH
//     node echo.mjs hello h2|ws URL CA HEX LENGTH        a session's first bytes: as h2_client.py, ws_client.py
//
// A call opens so many POSTs, each with so many messages: the first half one after the other, each when the last
// is back, so that both bodies have to flow at once; the others all together. The last line of its output is what
// came with the answer, as JSON; it exits 1 if anything else came back, and by itself. In a flood both sides send so
// much without asking what the other does, and take what comes, as a session of Beam does.
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import crypto from 'node:crypto';

const TYPE = 'application/x-beam';
const WS = '/usr/share/nodejs/ws/wrapper.mjs';
// As Beam has them (docs/spec/http.md, S7): with small ones a session stops for ever behind haproxy.
const STREAM_WINDOW = 4 << 20, CONNECTION_WINDOW = 16 << 20;
const own = {initialWindowSize: STREAM_WINDOW, enablePush: false};

function fail(text) {
    console.error(text);
    process.exit(1);
}

function message(number, length) {
    return Buffer.alloc(length, crypto.createHash('sha256').update(`message ${number}`).digest());
}

function pour(stream, mib) {
    const chunk = Buffer.alloc(65536, 'flood');
    let left = mib * 16;
    (function go() {
        while (left-- > 0)
            if (!stream.write(chunk))
                return stream.once('drain', go);
        stream.end();
    })();
}

async function serve(kind, port, cert, key) {
    if (kind === 'ws') {
        const {WebSocketServer} = await import(WS);
        const server = http.createServer((request, response) => {
            response.writeHead(426, {upgrade: 'websocket'}).end();
        });
        const options = {server, handleProtocols: (names) => names.has('beam.v1') && 'beam.v1'};
        new WebSocketServer(options).on('connection', (socket, request) => {
            if (request.headers.host.startsWith('localhost'))
                socket.on('message', (data, binary) => socket.send(data, {binary}));
        });
        server.listen(port, '127.0.0.1');
        return;
    }
    const settings = {...own, enableConnectProtocol: true};
    const server = kind === 'tls'
        ? http2.createSecureServer({settings, cert: fs.readFileSync(cert), key: fs.readFileSync(key),
                                    minVersion: 'TLSv1.3'})
        : http2.createServer({settings});
    server.on('session', (session) => session.setLocalWindowSize(CONNECTION_WINDOW));
    server.on('stream', (stream, headers) => {
        stream.on('error', (error) => console.error(`stream: ${error.message}`));
        if (headers[':protocol'] === 'websocket') {
            stream.respond({':status': 200, 'sec-websocket-protocol': headers['sec-websocket-protocol']});
            return stream.pipe(stream);
        }
        if (headers[':method'] !== 'POST' || headers['content-type'] !== TYPE)
            return stream.respond({':status': 415}, {endStream: true});
        stream.respond({':status': 200, 'content-type': TYPE, 'x-seen': headers['x-who'] ?? '',
                        'x-length': headers['content-length'] ?? ''});
        if (!headers['x-flood'])
            return stream.pipe(stream);
        stream.resume();
        pour(stream, Number(headers['x-flood']));
    });
    server.listen(Number(port), '127.0.0.1');
}

// Answers as a proxy's auth_request wants it, and never looks at the body.
function who(port) {
    http.createServer((request, response) => {
        if (request.headers.authorization === 'Bearer good')
            response.writeHead(204, {'x-who': 'ada'}).end();
        else
            response.writeHead(401, {'www-authenticate': 'Bearer'}).end();
    }).listen(port, '127.0.0.1');
}

function conversation(client, headers, messages, length) {
    return new Promise((resolve) => {
        const stream = client.request({':method': 'POST', ':path': '/beam/v1', 'content-type': TYPE, ...headers});
        const half = messages >> 1;
        let sent = 0, came = 0, part = [], have = 0, answer;
        const send = () => stream.write(message(sent++, length));
        stream.on('error', (error) => fail(`stream: ${error.message}, after ${came} messages and ${have} bytes`));
        stream.on('response', (got) => {
            answer = got;
            if (got[':status'] !== 200)
                stream.end();
        });
        stream.on('data', (data) => {
            part.push(data);
            have += data.length;
            while (have >= length && came < messages) {
                const bytes = Buffer.concat(part);
                if (!bytes.subarray(0, length).equals(message(came, length)))
                    fail(`message ${came} has changed on its way`);
                part = [bytes.subarray(length)];
                have -= length;
                came++;
                if (sent < half)
                    send();
                else if (came === half)
                    while (sent < messages)
                        send();
            }
            if (came === messages)
                stream.end();
        });
        stream.on('end', () => {
            if (answer[':status'] === 200 && (came !== messages || have !== 0))
                fail(`an end after ${came} messages and ${have} bytes`);
            resolve(answer);
        });
        send();
    });
}

function connect(url, ca) {
    const client = http2.connect(url, {settings: own, ca: fs.readFileSync(ca)});
    client.on('error', (error) => fail(`connection: ${error.message}`));
    client.on('connect', () => client.setLocalWindowSize(CONNECTION_WINDOW));
    return client;
}

function flood(url, ca, mib) {
    const client = connect(url, ca);
    const stream = client.request({':method': 'POST', ':path': '/beam/v1', 'content-type': TYPE, 'x-flood': mib});
    let came = 0;
    stream.on('error', (error) => fail(`stream: ${error.message}, after ${came} bytes`));
    stream.on('data', (data) => came += data.length);
    stream.on('end', () => {
        console.log(JSON.stringify({mib: came / 1048576}));
        client.close();
    });
    pour(stream, Number(mib));
}

async function call(url, ca, streams, messages, length, ...words) {
    const headers = Object.fromEntries(words.map((word) => word.split('=')));
    const client = connect(url, ca);
    const all = Array.from({length: Number(streams)},
                           () => conversation(client, headers, Number(messages), Number(length)));
    const answers = await Promise.all(all);
    client.close();
    console.log(JSON.stringify(answers[0]));
}

const websocketHeaders = {'sec-websocket-version': '13', 'sec-websocket-protocol': 'beam.v1'};

function upgrade(url, ca) {
    const request = https.request(`${url}beam/v1/ws`, {ca: fs.readFileSync(ca), headers: {
        ...websocketHeaders, connection: 'upgrade', upgrade: 'websocket',
        'sec-websocket-key': crypto.randomBytes(16).toString('base64')}});
    request.on('error', (error) => fail(`upgrade: ${error.message}`));
    request.end();
    return request;
}

// After the handshake whatever is sent has to come back, as no proxy looks at it.
function tunnel(version, url, ca) {
    const secret = 'behind the handshake';
    const use = (socket, status, done) => {
        let came = '';
        socket.on('error', (error) => fail(`tunnel: ${error.message}`));
        socket.on('data', (data) => {
            came += data;
            if (came === secret) {
                console.log(JSON.stringify({status}));
                done();
            }
        });
        socket.write(secret);
    };
    if (version === 'h2') {
        const client = connect(url, ca);
        client.once('remoteSettings', (theirs) => {
            if (!theirs.enableConnectProtocol) {
                console.log(JSON.stringify({status: 'not offered'}));
                return client.destroy();
            }
            const stream = client.request({':method': 'CONNECT', ':protocol': 'websocket', ':path': '/beam/v1/ws',
                                           ':scheme': 'https', ':authority': new URL(url).host,
                                           ...websocketHeaders});
            stream.on('response', (got) => use(stream, got[':status'], () => client.destroy()));
        });
        return;
    }
    const request = upgrade(url, ca);
    request.on('response', (got) => {
        console.log(JSON.stringify({status: got.statusCode}));
        request.destroy();
    });
    request.on('upgrade', (got, socket) => use(socket, got.statusCode, () => socket.destroy()));
}

async function websocket(url, ca, messages, length) {
    const {WebSocket} = await import(WS);
    const socket = new WebSocket(url, ['beam.v1'], {ca: fs.readFileSync(ca)});
    let came = 0;
    socket.on('error', (error) => fail(`socket: ${error.message}`));
    socket.on('open', () => {
        for (let i = 0; i < messages; i++)
            socket.send(message(i, Number(length)));
    });
    socket.on('message', (data) => {
        if (!data.equals(message(came++, Number(length))))
            fail(`message ${came - 1} has changed on its way`);
        if (came === Number(messages))
            socket.close(1000);
    });
    socket.on('close', (code) => {
        if (came !== Number(messages) || code !== 1000)
            fail(`closed with ${code} after ${came} messages`);
        console.log(JSON.stringify({protocol: socket.protocol}));
    });
}

function idle(kind, url, ca) {
    const over = () => {
        console.log(JSON.stringify({closed: true}));
        process.exit(0);
    };
    if (kind === 'upgrade')
        return upgrade(url, ca).on('upgrade', (got, socket) => socket.resume().on('error', () => {}).on('close', over));
    const stream = connect(url, ca).request({':method': 'POST', ':path': '/beam/v1', 'content-type': TYPE,
                                             authorization: 'Bearer good'});
    stream.write('once');
    stream.on('error', () => {}); // a close follows
    stream.once('data', () => stream.resume().on('close', over));
}

// What a server of Beam's answers to these bytes: printed with what came around them, when all has ended.
async function hello(kind, url, ca, hex, length) {
    const sent = Buffer.from(hex, 'hex');
    if (kind === 'ws') {
        const {WebSocket} = await import(WS);
        const socket = new WebSocket(url, ['beam.v1'], {ca: fs.readFileSync(ca)});
        let came;
        socket.on('error', (error) => fail(`socket: ${error.message}`));
        socket.on('open', () => socket.send(sent));
        socket.once('message', (data) => {
            came = data;
            socket.close(1000);
        });
        socket.on('close', (code) => console.log(JSON.stringify(
            {protocol: socket.protocol, came: came?.toString('hex') ?? '', code})));
        return;
    }
    const client = connect(url, ca);
    const stream = client.request({':method': 'POST', ':path': new URL(url).pathname, 'content-type': TYPE,
                                   'beam-version': '1'});
    let headers, came = Buffer.alloc(0);
    stream.on('error', (error) => fail(`stream: ${error.message}`));
    stream.on('response', (got) => headers = got);
    stream.on('data', (data) => {
        came = Buffer.concat([came, data]);
        if (came.length >= Number(length))
            stream.end();
    });
    stream.on('end', () => {
        console.log(JSON.stringify({headers, came: came.subarray(0, Number(length)).toString('hex'), end: 'end'}));
        client.close();
    });
    stream.write(sent);
}

const [verb, ...words] = process.argv.slice(2);
await {serve, who, call, flood, tunnel, idle, hello, ws: websocket}[verb](...words);
