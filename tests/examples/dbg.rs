use rov_tests::devtools::DevTools;
use rov_tests::programs::Server;
use rov_tests::wait;
fn main() {
    for (w, h, fps) in [("640","360","30"),("1280","720","30"),("1280","720","25"),("1280","720","60")] {
    let server = Server::start(&["--width",w,"--height",h,"--fps",fps]);
    let mut c = DevTools::start();
    let page = c.open(&server.url("/"));
    c.wait_for(&page, "document.body?.dataset.state === 'live'", wait::START);
    for observe in [false, true] {
    let read = if observe { "mark(video)" } else { "null" };
    c.evaluate(&page, &format!("{}; globalThis.seen = []; globalThis.gen=(globalThis.gen??0)+1; {{ const g=gen; const o = () => video.requestVideoFrameCallback((now, m) => {{ if (g!==gen) return; const t=performance.now(); seen.push([m.expectedDisplayTime-m.receiveTime, m.presentationTime-m.receiveTime, t-m.receiveTime, performance.timeOrigin+m.expectedDisplayTime, {read}]); o() }}); o() }} 0", include_str!("../src/mark.js").replace("const cells", "var cells")));
    std::thread::sleep(std::time::Duration::from_secs(5));
    let r = c.evaluate(&page, "(() => { const q=(a,p)=>a.sort((x,y)=>x-y)[Math.floor((a.length-1)*p)].toFixed(1); const col=i=>seen.map(s=>s[i]); const lat=seen.filter(s=>s[4]).map(s=>s[3]-s[4].drawn); return [seen.length, 'expected', q(col(0),.5), q(col(0),.95),'presentation', q(col(1),.5),'callback', q(col(2),.5), 'mark', lat.length?q(lat,.5):0, lat.length?q(lat,.95):0] })()");
    println!("{w}x{h}@{fps} observe={observe} {r}");
    }}
}
