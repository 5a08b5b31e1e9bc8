"""Clauses, procedures and notices, English and Spanish, to be said back to the byte: data, written for this project.

`verbatim_texts` are single ones of some 5 to 120 tokens, `long_texts` runs of them.
"""

from __future__ import annotations

_ENGLISH = """
Either party may cancel this contract with 30 days' written notice.
Part number 7741-KX-09, torque 38 Nm, grease with lithium soap only.
Press and hold both buttons for seven seconds until the green light blinks twice.
Invoices are due within fourteen days of receipt, without deduction.
The deposit is returned in full if the keys reach our office before noon on the last day of the lease.
Do not open the housing while the red lamp is lit.
Warranty claims must name the serial number, the date of purchase and the dealer.
The tenant may keep one cat; dogs need the written consent of all neighbours on the same floor.
Rinse the filter under cold water, let it dry for a full day, and put it back with the arrow pointing upwards.
Orders placed after 15:40 leave the warehouse on the next working day.
Ring the bell at gate 4 and wait for the porter; never walk past the yellow line.
Refunds are paid to the card that was charged, within ten working days, less the cost of carriage.
If the pressure rises above 6.2 bar, close valve B first, then valve D, and inform the shift leader.
Members who resign before 31 March owe half of the yearly fee.
The password is changed every ninety days and has at least twelve characters, one of them a digit.
Store below 25 degrees, away from light, and discard eight weeks after opening.
Claims under 200 euros are settled without an expert's report.
Save the form as "K-17 revised", print two copies, and have both signed by the site manager before work begins.
The licence covers three named users at one address and ends when the subscription ends.
Visitors sign the book, wear the blue badge, and leave cameras at the desk.
Keep dry.
Fragile: this side up, no hooks.
Do not mix with bleach.
Torque each nut to 22 Nm.
Part 55-A/90: replace every 500 hours.
Gate 12 closes ten minutes before departure.
Article No. 3301-B, batch 7 of 9, best before 06/2031.
Lost keys cost 85 euros each, locks included.
The reading room is closed on Mondays and on the last Friday of June.
Payment terms: 2 % discount within 8 days, net 30 days.
Emergency stop: turn the red knob a quarter to the right, then pull it.
Rent is raised once a year, on 1 October, by no more than the consumer price index of the year before.
The supplier keeps title to the goods until the price, interest and costs have been paid in full.
Wear gloves of nitrile, at least 0.4 mm thick, and change them every two hours.
This agreement is governed by the law of the place where the goods are delivered.
Before the first use, fill the tank to the upper mark, run the pump for three minutes with the outlet open, and pour that water away.
Samples are numbered in the order in which they arrive; a number that was given by mistake is crossed out and never used again.
If the buyer does not collect the goods within fourteen days of the notice, the seller may store them at the buyer's expense or sell them elsewhere.
Each party keeps secret what it learns about the other's customers, prices and methods, during the contract and for five years after its end.
To reset the meter, hold the left key, switch the mains on, wait for the letters "CAL", let go of the key, and enter the code 4-0-9-2 within twenty seconds.
The carrier is not liable for delay caused by strikes, floods, closed borders or orders of an authority, provided that it told the sender within two days.
Night staff check the cold store at 22:00, 02:00 and 05:00, write the temperature into the blue book, and call the technician on duty if it is above minus 16 degrees.
The insurer may ask for a second opinion at its own cost; if the two opinions differ by more than a tenth, a third expert, named by both, decides for both.
Remove the four screws M6 x 20, lift the cover towards you, unplug connector X3, and lay the cover on a soft cloth; never let it hang by the cable.
Deliveries to the hospital use the north ramp only, between 6:30 and 9:00, with the engine off; drivers report to the desk, show the order number, and wait there until a porter has signed.
The association's board has five members. It is elected for three years and meets at least four times a year. It decides by a simple majority; if votes are equal, the chair's vote decides. Minutes are sent to all members within two weeks.
In case of fire: leave the building by the nearest stairs, not by the lift. Help those who cannot walk alone. Close doors behind you, do not lock them. Gather on the lawn behind building C and tell the warden your name. Nobody goes back in before the fire brigade allows it.
The borrower repays the loan in sixty equal instalments on the first of each month, beginning with the month after payment. Who is late by more than ten days owes four percent interest a year on what is late. The borrower may repay everything at any time, without a fee, and then owes interest only for the days that have passed.
Calibration of the scale: 1. Level it with the two front feet until the bubble stands in the ring. 2. Switch it on and wait thirty minutes. 3. Press CAL until "0.000" blinks. 4. Put the 500 g weight on the middle of the pan. 5. When "500.000" stands still, take the weight off. 6. Note date, reading and your initials in the log.
The customer may return unused goods within thirty days of delivery, in their box and with the receipt. We pay the price back within a week, by the way in which it was paid. Goods made to measure, opened software and food are excluded. For faulty goods the law applies, whatever is said here.
Tickets are not refunded after 18:00 on the day before the show.
Filter type F7, 592 x 287 x 48 mm, change in March and September.
Dilute one part of cleaner in forty parts of water.
Children under twelve ride free when an adult pays.
The lift carries eight persons or 630 kg.
The guarantee ends on 30 June 2033, whatever the hours run.
Any change of this contract must be made in writing, this clause included.
Enter the code 9-1-7-3 and press the hash key.
The parcel is kept for seven days at counter 3.
"""

_SPANISH = """
El arrendatario devolverá las llaves antes de las diez de la mañana.
Cualquiera de las partes podrá resolver el contrato con un preaviso de treinta días.
No abra la tapa mientras la luz roja esté encendida.
Las facturas se pagan en un plazo de catorce días, sin descuento alguno.
Mantenga pulsados los dos botones durante siete segundos hasta que la luz verde parpadee dos veces.
La garantía no cubre los daños causados por agua de mar.
Enjuague el filtro con agua fría y déjelo secar un día entero antes de volver a colocarlo.
Los pedidos hechos después de las 15:40 salen del almacén el siguiente día hábil.
Si la presión supera 6,2 bar, cierre primero la válvula B y avise al jefe de turno.
El socio que se dé de baja antes del 31 de marzo abonará la mitad de la cuota anual.
Consérvese por debajo de 25 grados y deséchese ocho semanas después de abrirlo.
La fianza se devuelve íntegra si no hay desperfectos.
Toque el timbre de la puerta 4 y espere al portero; no cruce nunca la línea amarilla.
Las reclamaciones inferiores a 200 euros se resuelven sin peritaje.
Guarde el formulario con el nombre «K-17 revisado» e imprima dos copias.
Frágil, no volcar.
No mojar.
Pieza 55-A/90: cámbiese cada 500 horas.
La puerta 12 cierra diez minutos antes de la salida.
Apriete cada tuerca a 22 Nm.
Prohibido el paso a toda persona ajena a la obra.
El depósito se paga el primer día de cada mes.
Artículo 3301-B, lote 7 de 9, consumir antes de junio de 2031.
La sala de lectura cierra los lunes y el último viernes de junio.
Las llaves perdidas cuestan 85 euros cada una, cerradura incluida.
Este contrato se rige por la ley del lugar de entrega.
Use guantes de nitrilo de 0,4 mm y cámbielos cada dos horas.
Condiciones de pago: 2 % de descuento en 8 días, neto a 30 días.
Parada de emergencia: gire el botón rojo un cuarto a la derecha y tire de él.
La renta se revisa una vez al año, el 1 de octubre, y nunca por encima del índice de precios.
El vendedor conserva la propiedad de los bienes hasta el pago total del precio.
Antes del primer uso, llene el depósito hasta la marca superior y deje correr la bomba tres minutos.
Cada parte guardará secreto sobre los clientes y los precios de la otra durante cinco años.
El transportista no responde del retraso causado por huelgas o inundaciones si avisó al remitente en dos días.
Para reiniciar el contador, mantenga la tecla izquierda, conecte la corriente y teclee el código 4-0-9-2 en veinte segundos.
El turno de noche comprueba la cámara a las 22:00, a las 02:00 y a las 05:00 y anota la temperatura en el libro azul.
Quite los cuatro tornillos, levante la tapa hacia usted, desenchufe el conector X3 y deje la tapa sobre un paño.
En caso de incendio, salga por la escalera más cercana, no use el ascensor, cierre las puertas sin llave y espere en el césped detrás del edificio C.
La junta tiene cinco miembros, se elige por tres años y se reúne al menos cuatro veces al año; decide por mayoría simple y, en caso de empate, decide la presidencia.
El prestatario devuelve el préstamo en sesenta cuotas iguales, el primer día de cada mes. Si se retrasa más de diez días, paga un interés del cuatro por ciento anual sobre lo debido.
El cliente puede devolver los artículos sin usar en treinta días, en su caja y con el recibo. Devolvemos el precio en una semana, por el mismo medio de pago. Quedan excluidos los artículos hechos a medida.
El ascensor admite ocho personas o 630 kg.
Filtro F7, 592 x 287 x 48 mm, cambiar en marzo y septiembre.
Diluya una parte de limpiador en cuarenta de agua.
Los menores de doce años viajan gratis con un adulto.
La garantía termina el 30 de junio de 2033.
Toda modificación de este contrato se hará por escrito.
Teclee el código 9-1-7-3 y pulse la almohadilla.
El paquete se guarda siete días en la ventanilla 3.
No se devuelve el importe de las entradas después de las 18:00 del día anterior.
"""


def verbatim_texts() -> list[str]:
    """All of them, English and Spanish in turn as long as there are both."""
    english, spanish = _ENGLISH.strip().splitlines(), _SPANISH.strip().splitlines()
    both = [text for pair in zip(english, spanish, strict=False) for text in pair]
    return both + english[len(spanish) :]


def long_texts(count: int) -> list[str]:
    """`count` texts, each all clauses of one language in an order of its own."""
    found = []
    for index in range(count):
        clauses = (_ENGLISH if index % 2 == 0 else _SPANISH).strip().splitlines()
        turn = (3 * (index // 2)) % len(clauses)
        found.append(" ".join(clauses[turn:] + clauses[:turn]))
    return found
