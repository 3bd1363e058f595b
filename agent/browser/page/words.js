// Every word of the page, in English and Hebrew.

const WORDS = {
  en: {
    title: "Talk to the agent", call: "Call", again: "Call again", hangUp: "Hang up",
    idle: "Ready to call", connecting: "Connecting…", talking: "Connected", reconnecting: "The connection broke. Coming back…",
    ended: "The call has ended", error: "The call did not work",
    you: "You", agent: "Agent", yourLevel: "Your microphone", agentLevel: "Agent's voice",
    captions: "What was said", keys: "Keys", key: "Key", timeline: "The call in time", latency: "Answer times",
    interrupted: "interrupted", unheard: "not heard", turn: "end of turn and answer", voice: "voice", way: "network and speaker",
    nothingYet: "The words of both appear here as they are heard.", interruption: "interruption", interruptions: "interruptions:",
    firstWord: "From the press of Call to the first word:", hint: "Your browser will ask for the microphone.",
    theme: "Light or dark", language: "עברית", 
    insecure: "The microphone works on https pages and on localhost only. Open this page with https.",
    no_microphone: "No microphone was found. Plug one in and press Call again.",
    no_worklet: "This browser is too old to phone with. Update it, or use another one.",
    refused: "The microphone was refused. Allow it beside the address of this page, then press Call again.",
    taken: "Another program uses the microphone. Close that program and press Call again.",
    unplugged: "The microphone was unplugged. Plug it in and press Call again.",
    unreachable: "The server cannot be reached. See that it runs, then press Call again.",
    forbidden: "Phoning is not allowed from here.", nobody: "Nobody answers under this name. Check the address of this page.", often: "Those were many calls in a minute. Wait a minute, then press Call again.",
    token: "The permission to call was too old. Press Call again.", busy: "All lines are busy. Try again in a moment.",
    lost: "The connection was lost and did not come back. Press Call again.",
    gone: "The call is over on the server's side. Press Call again.",
    stopped: "The server was stopped. Wait a moment, then press Call again.",
    no_model: "The agent cannot answer at present. Wait a moment, then press Call again.",
    end_idle: "Nothing was said for a while. Press Call again to go on.", end_time: "The call had reached its longest time. Press Call again to go on.",
    elsewhere: "This call goes on in another tab. Close this one.",
    release: "The server was updated. Load this page again.", full: "The network is too slow. Your microphone is closed until it has caught up.",
    low: "Low bandwidth", not_low: "This server cannot do low bandwidth. The call uses the full one.",
    no_low: "This server cannot take what this browser records. Use another browser.",
    broken: "Something was wrong with the connection. Load this page again.",
    audio: "The server cannot read what this browser records. Switch low bandwidth off, then press Call again.",
  },
  he: {
    title: "שיחה עם הסוכן", call: "חיוג", again: "חיוג נוסף", hangUp: "ניתוק",
    idle: "אפשר לחייג", connecting: "מתחברים…", talking: "מחוברים", reconnecting: "החיבור נקטע. מתחברים מחדש…",
    ended: "השיחה הסתיימה", error: "השיחה לא הצליחה",
    you: "את/ה", agent: "הסוכן", yourLevel: "המיקרופון שלך", agentLevel: "קול הסוכן",
    captions: "מה נאמר", keys: "מקשים", key: "מקש", timeline: "השיחה על ציר הזמן", latency: "זמני תשובה",
    interrupted: "נקטע", unheard: "לא נשמע", turn: "סוף הדיבור והתשובה", voice: "קול", way: "רשת ורמקול",
    nothingYet: "המילים של שני הצדדים יופיעו כאן כשהן נשמעות.", interruption: "הפרעה", interruptions: "הפרעות:",
    firstWord: "מהלחיצה על חיוג עד המילה הראשונה:", hint: "הדפדפן יבקש גישה למיקרופון.",
    theme: "בהיר או כהה", language: "English",
    insecure: "המיקרופון פועל רק בדפי https או ב-localhost. יש לפתוח את הדף ב-https.",
    no_microphone: "לא נמצא מיקרופון. יש לחבר אחד וללחוץ שוב על חיוג.",
    no_worklet: "הדפדפן ישן מדי לשיחה. יש לעדכן אותו או להשתמש באחר.",
    refused: "הגישה למיקרופון נדחתה. יש לאשר אותה ליד כתובת הדף וללחוץ שוב על חיוג.",
    taken: "תוכנה אחרת משתמשת במיקרופון. יש לסגור אותה וללחוץ שוב על חיוג.",
    unplugged: "המיקרופון נותק. יש לחבר אותו וללחוץ שוב על חיוג.",
    unreachable: "אין קשר עם השרת. יש לוודא שהוא פועל וללחוץ שוב על חיוג.",
    forbidden: "אי אפשר לחייג מכאן.", nobody: "אין מי שיענה בשם הזה. יש לבדוק את כתובת הדף.", often: "היו הרבה שיחות בדקה אחת. יש להמתין דקה וללחוץ שוב על חיוג.",
    token: "האישור לשיחה פג. יש ללחוץ שוב על חיוג.", busy: "כל הקווים תפוסים. יש לנסות שוב בעוד רגע.",
    lost: "החיבור אבד ולא חזר. יש ללחוץ שוב על חיוג.", gone: "השיחה הסתיימה בצד השרת. יש ללחוץ שוב על חיוג.",
    stopped: "השרת הופסק. יש להמתין רגע וללחוץ שוב על חיוג.",
    no_model: "הסוכן אינו יכול לענות כרגע. יש להמתין רגע וללחוץ שוב על חיוג.",
    end_idle: "לא נאמר דבר זמן מה. אפשר ללחוץ שוב על חיוג.", end_time: "השיחה הגיעה לאורכה המרבי. אפשר ללחוץ שוב על חיוג.",
    elsewhere: "השיחה נמשכת בלשונית אחרת. אפשר לסגור את זו.",
    release: "השרת עודכן. יש לטעון את הדף מחדש.", full: "הרשת איטית מדי. המיקרופון סגור עד שהיא תדביק את הקצב.",
    low: "חיסכון ברוחב פס", not_low: "השרת הזה לא תומך בחיסכון ברוחב פס. השיחה מתנהלת ברוחב פס מלא.",
    no_low: "השרת הזה לא יכול לקבל את מה שהדפדפן מקליט. יש להשתמש בדפדפן אחר.",
    broken: "משהו השתבש בחיבור. יש לטעון את הדף מחדש.",
    audio: "השרת לא מצליח לקרוא את מה שהדפדפן מקליט. יש לבטל את החיסכון ברוחב פס וללחוץ שוב על חיוג.",
  },
};

export function wordsFor(language) {
  return WORDS[language] || WORDS.en;
}

export function directionOf(language) {
  return language === "he" ? "rtl" : "ltr";
}
